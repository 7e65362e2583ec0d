"""The search space surrounds the defaults, follows the method, and checks defaults outside it."""

from __future__ import annotations

import pytest

from oncoshift.errors import SettingsError
from oncoshift.settings import Choices, Range, Settings, flatten, replace_values
from oncoshift.tuning.space import build_search_space, list_tunable, select_parameters, to_distributions

DANN = {"model", "train", "dann"}


def test_ranges_and_choices_stand_beside_defaults() -> None:
    space, defaults = list_tunable(), flatten(Settings())
    assert space["train.lr"] == Range(1e-3, 3e-2, log=True)
    assert space["dann.hidden"] == Choices((0, 64, 256))
    assert space["train.optimizer"] == Choices(("adamw", "sgd")), "a literal's values need not be told twice"
    assert space["cdan.entropy_weighting"] == Choices((False, True))
    assert build_search_space({key: defaults[key] for key in space}) == space, "every default lies in its own range"


@pytest.mark.parametrize("key", sorted(list_tunable()))
def test_settings_allow_all_that_tuning_may_try(key: str) -> None:
    item = list_tunable()[key]
    for value in item.values if isinstance(item, Choices) else (item.low, item.high):
        assert flatten(replace_values(Settings(), {key: value}))[key] == value


def test_only_what_the_method_reads_is_searched() -> None:
    assert select_parameters(("train.lr", "mdd.margin", "train.lr"), DANN, Settings()) == (["train.lr"], ["mdd.margin"])


def test_all_means_all_that_the_method_reads() -> None:
    keys, unread = select_parameters(("all",), DANN, Settings())
    assert {key.split(".")[0] for key in keys} == DANN
    assert set(keys) == {key for key in list_tunable() if key.split(".")[0] in DANN}
    assert unread == []
    frozen = replace_values(Settings(), {"model.freeze": "all"})
    assert set(keys) - set(select_parameters(("all",), DANN, frozen)[0]) == {"train.stain_jitter"}
    assert "self_training.stain_jitter" not in select_parameters(("all",), {"train", "self_training"}, frozen)[0]
    with pytest.raises(SettingsError, match=r"self_training.stain_jitter changes tiles"):
        replace_values(frozen, {"tune.parameters": ["self_training.stain_jitter"]})


def test_what_cannot_be_tuned_is_told() -> None:
    with pytest.raises(SettingsError, match=r"model.backbone cannot be tuned; allowed: all, .*train.lr"):
        select_parameters(("train.lr", "model.backbone"), DANN, Settings())
    with pytest.raises(SettingsError, match=r"train.weight_decay: 0.0 cannot be tuned.*logarithmic"):
        build_search_space({"train.weight_decay": 0.0})


def test_the_space_is_widened_to_hold_the_present_value() -> None:
    space = build_search_space({"train.lr": 0.5, "train.stain_jitter": 0.1, "dann.hidden": 32, "train.ema": 0.5})
    assert space["train.lr"] == Range(1e-3, 0.5, log=True)
    assert space["train.stain_jitter"] == Range(0.0, 0.3)
    assert space["dann.hidden"] == Choices((0, 64, 256, 32))
    assert space["train.ema"] == Choices((None, 0.99, 0.999, 0.5))


def test_optuna_draws_from_the_space() -> None:
    drawn = to_distributions({"train.lr": Range(1e-3, 1e-1, log=True), "dann.hidden": Choices((0, 64))})
    assert (drawn["train.lr"].low, drawn["train.lr"].high, drawn["train.lr"].log) == (1e-3, 1e-1, True)
    assert drawn["dann.hidden"].choices == (0, 64)
