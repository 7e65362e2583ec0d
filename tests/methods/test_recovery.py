"""Synthetic shift: source-only follows a shortcut that the target lacks, and every method finds the way back."""

from __future__ import annotations

import pytest

from oncoshift.methods.factory import TERMS

SEEDS = (0, 1, 2)
CHANGES = {
    "mcc": {"mcc": {"weight": 3.0}},
    "mdd": {"train": {"steps_per_epoch": 150}},
    "self_training": {"self_training": {"weight": 3.0, "threshold": 0.75}},
}
"""Where the defaults, which are for longer trainings of whole networks, are too slow for 200 steps."""


@pytest.mark.parametrize("seed", SEEDS)
def test_source_only_fails(world, settings_for, train, seed):
    trained = train(world(seed), settings_for("erm", seed))
    assert trained.history[-1]["source_accuracy"] > 0.98
    assert trained.target_accuracy < 0.65


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", [name for name, terms in TERMS.items() if terms])
def test_method_recovers(world, settings_for, train, method, seed):
    trained = train(world(seed), settings_for(method, seed, **CHANGES.get(method, {})))
    assert trained.history[-1]["source_accuracy"] > 0.9
    assert trained.target_accuracy > 0.93
