"""Models of single source organs, and their mean, cope with organs that contradict each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.errors import DataError, SettingsError
from oncoshift.methods.factory import build_method, list_member_settings, list_trained_organs
from oncoshift.models.network import as_one
from oncoshift.serving.classifier import log_mean_softmax
from oncoshift.settings import Settings, replace_values
from oncoshift.training.inputs import FeatureInputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SEEDS = (0, 1, 2)
ORGANS = ("lung", "colon", "breast")
SOURCES, TARGETS, WIDTH = 600, 200, 512
SHORT = {"epochs": 1}


def contradicting(world, seed: int, signs: dict[str, int]):  # type: ignore[no-untyped-def]
    """Make a world where feature 0 separates the classes by an organ's sign; the target's is +1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(SOURCES + TARGETS) % 2
    organs = np.arange(SOURCES) // 2 % len(signs)
    sign = np.append(np.array(list(signs.values()))[organs], np.ones(TARGETS))
    x = rng.normal(0, 0.05, (len(labels), WIDTH))
    x[:, 0] += sign * (2.0 * labels - 1.0) + rng.normal(0, 0.2, len(labels))
    images, held_out = np.zeros((len(x), 1, 1, 3), np.uint8), np.arange(SOURCES) // 6 % 5 == 4

    def source(mask: np.ndarray) -> SourceTiles:
        rows = np.flatnonzero(mask)
        return SourceTiles(images, rows, labels[rows], organs[rows], tuple(signs))

    data = TrainingData(source(~held_out), source(held_out), TargetTiles(images, np.arange(SOURCES, len(x))))
    return world(0)._replace(data=data, inputs=FeatureInputs(x.astype(np.float32)), target_labels=labels[SOURCES:])


@pytest.mark.parametrize("seed", SEEDS)
def test_one_organ_alone_does_what_the_pool_cannot(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any], seed: int
) -> None:
    tiles = contradicting(world, seed, {"lung": 1, "colon": -1, "breast": -1})
    assert train(tiles, settings_for("erm", seed, train=SHORT)).target_accuracy < 0.1

    def alone(organ: str) -> float:
        settings = settings_for("single", seed, single={"organ": organ}, train=SHORT)
        trained = train(tiles._replace(data=tiles.data.only(list_trained_organs(settings))), settings)
        assert trained.history[-1]["source_accuracy"] > 0.98, "it is validated on its own organ"
        return trained.target_accuracy

    assert alone("lung") > 0.98
    assert alone("colon") < 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_an_ensemble_outvotes_an_organ_that_says_the_opposite(
    world: Callable[..., Any],
    settings_for: Callable[..., Settings],
    train: Callable[..., Any],
    accuracy: Callable[..., float],
    seed: int,
) -> None:
    tiles = contradicting(world, seed, {"lung": 1, "colon": -1, "breast": 1})
    settings = replace_values(settings_for("ensemble", seed, train=SHORT), {"sources": list(ORGANS)})
    members = [
        train(tiles._replace(data=tiles.data.only(list_trained_organs(member))), member)
        for member in list_member_settings(settings)
    ]
    assert [member.target_accuracy > 0.98 for member in members] == [True, False, True]
    assert accuracy(as_one([member.method.net.eval() for member in members]), tiles) > 0.98


def test_mean_of_probabilities_by_hand() -> None:
    """The mean of p = .9 and .2 is .55; averaging logits instead would give another value."""
    logits = torch.tensor([[[0.0, math.log(9.0)]], [[math.log(4.0), 0.0]]])
    assert log_mean_softmax(logits).exp()[0].tolist() == pytest.approx([0.45, 0.55])
    assert log_mean_softmax(logits).softmax(1)[0].tolist() == pytest.approx([0.45, 0.55])
    sure = log_mean_softmax(torch.tensor([[[200.0, -200.0]], [[-300.0, 300.0]]]))
    assert sure.exp()[0].tolist() == pytest.approx([0.5, 0.5])


def test_organs_and_members_of_each_method() -> None:
    def organs(**values: object) -> tuple[str, ...]:
        return list_trained_organs(replace_values(Settings(), {key.replace("__", "."): v for key, v in values.items()}))

    assert organs(train__method="dann") == ("lung", "colon", "breast")
    assert organs(train__method="single") == ("lung",)
    assert organs(train__method="single", single__organ="breast") == ("breast",)
    assert organs(train__method="dann", single__organ="breast") == ("lung", "colon", "breast")
    members = list_member_settings(replace_values(Settings(), {"train.method": "ensemble", "seed": 3}))
    assert [(member.train.method, member.single.organ, member.seed) for member in members] == [
        ("single", organ, 3) for organ in ORGANS
    ]
    assert list_member_settings(Settings()) == (Settings(),)


def test_an_organ_that_is_no_source_is_refused() -> None:
    values = {"train.method": "single", "single.organ": "skin"}
    with pytest.raises(SettingsError, match=r"single.organ 'skin' is not one of the sources \['lung'"):
        replace_values(Settings(), values)
    replace_values(Settings(), {**values, "train.method": "dann"})  # which does not read it


def test_an_ensemble_is_not_one_network() -> None:
    with pytest.raises(ValueError, match="train its members"):
        build_method(replace_values(Settings(), {"train.method": "ensemble"}))


def test_only_some_organs_are_kept_and_numbered_in_the_order_asked_for(world: Callable[..., Any]) -> None:
    data = contradicting(world, 0, {"lung": 1, "colon": -1, "breast": 1}).data
    kept = data.only(("breast", "lung"))
    names = np.array(data.source.organ_names)[data.source.organs]
    assert kept.source.organ_names == ("breast", "lung")
    assert kept.source.rows.tolist() == data.source.rows[names != "colon"].tolist()
    assert np.array(kept.source.organ_names)[kept.source.organs].tolist() == names[names != "colon"].tolist()
    assert np.array_equal(kept.source.labels, data.source.labels[names != "colon"])
    assert len(kept.source_val.rows) == len(data.source_val.rows) * 2 // 3
    assert kept.target is data.target
    with pytest.raises(DataError, match="no source tiles of skin; there are lung, colon, breast"):
        data.only(("lung", "skin"))
