"""Source-only follows a shortcut that the target lacks, and every method corrects that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncoshift.methods.registry import METHODS
from oncoshift.training.diagnostics import list_findings

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oncoshift.settings import Settings

SEEDS = (0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow))
CHANGES: dict[str, dict[str, Any]] = {
    "mcc": {"mcc": {"weight": 3.0}},
    "mdd": {"train": {"steps_per_epoch": 150}},
    "self_training": {"self_training": {"weight": 3.0, "threshold": 0.75}},
    "self_training_orient": {"self_training": {"weight": 3.0, "threshold": 0.75}},
}
"""Settings for methods whose defaults, meant for longer trainings, are too slow for 200 steps."""


@pytest.mark.parametrize("seed", SEEDS)
def test_source_only_fails(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any], seed: int
) -> None:
    settings = settings_for("erm", seed)
    trained = train(world(seed), settings)
    assert trained.history[-1]["source_accuracy"] > 0.98
    assert trained.target_accuracy < 0.65
    assert list_findings(trained.history, settings) == ()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.terms and name != "orient"])
def test_method_recovers(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any], method: str, seed: int
) -> None:
    settings = settings_for(method, seed, **CHANGES.get(method, {}))
    trained = train(world(seed), settings)
    assert trained.history[-1]["source_accuracy"] > 0.9
    assert trained.target_accuracy > 0.93
    assert list_findings(trained.history, settings) == ()
