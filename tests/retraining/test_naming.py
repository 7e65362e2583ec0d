"""Names and parameters by which people tell runs apart."""

from __future__ import annotations

import pytest

from oncoshift.retraining.naming import (
    describe_commit,
    list_retraining_parameters,
    list_training_parameters,
    name_retraining,
    name_training,
)
from oncoshift.settings import Settings, replace_values

SETTINGS = replace_values(
    Settings(),
    {"target": "kidney", "sources": ["lung", "colon"], "seed": 3, "retrain.seeds": 2, "model.weights": "imagenet"},
)
COMMIT = "0123456789abcdef"


def test_a_name_says_target_sources_method_and_seeds() -> None:
    assert name_retraining(SETTINGS) == "kidney ← lung+colon · dann · 2 seeds"
    assert name_retraining(replace_values(SETTINGS, {"retrain.seeds": 1})).endswith("· 1 seed")
    assert name_training(SETTINGS) == "dann · seed 3"


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({}, "unknown"),
        ({"mlflow.source.git.commit": COMMIT, "mlflow.source.git.dirty": "false"}, "0123456789"),
        ({"mlflow.source.git.commit": COMMIT, "mlflow.source.git.dirty": "true"}, "0123456789 with local changes"),
    ],
)
def test_a_commit_tells_of_local_changes(tags: dict[str, str], words: str) -> None:
    assert describe_commit(tags) == words


def test_a_run_has_about_a_dozen_parameters_and_those_of_one_retraining_differ_in_method_and_seed_alone() -> None:
    parent = list_retraining_parameters(SETTINGS, "digest", {})
    assert (parent["seeds"], parent["sources"], parent["control"]) == ("3, 4", "lung, colon", "erm")
    assert len(parent) <= 14
    control = replace_values(SETTINGS, {"train.method": "erm", "seed": 4})
    one, other = (list_training_parameters(settings, "digest", {}) for settings in (SETTINGS, control))
    assert {name for name in one if one[name] != other[name]} == {"method", "seed"}


def test_weights_are_named_without_the_folder_of_this_machine() -> None:
    settings = replace_values(SETTINGS, {"model.weights": "/home/me/trunk.safetensors"})
    assert list_training_parameters(settings, "digest", {})["weights"] == "trunk.safetensors"
