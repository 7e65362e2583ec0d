"""A training killed between or within epochs resumes to the same bits, for every method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.methods.registry import METHODS
from oncoshift.settings.methods import MethodSections
from oncoshift.training.loop import _Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oncoshift.settings import Settings

WITH_LABEL_SHIFT = {
    name: {name: {"label_shift": "reweight"}}
    for name, section in MethodSections.model_fields.items()
    if "label_shift" in section.annotation.model_fields
}

ON_FEATURES = [
    name for name, row in METHODS.items() if not (row.changes_tiles or row.per_domain or row.member or row.closed_form)
]
"""Methods that train on features, in steps; tests/training covers the others."""

CASES = pytest.mark.parametrize(
    ("method", "changes"),
    [(name, {}) for name in ON_FEATURES] + list(WITH_LABEL_SHIFT.items()),
    ids=[*ON_FEATURES, *(f"{name}-label-shift" for name in WITH_LABEL_SHIFT)],
)


class PulledPlugError(Exception):
    """A simulated kill."""


def pull_after_two(row: dict[str, float]) -> None:
    if row["epoch"] == 1:
        raise PulledPlugError


def assert_same(whole, resumed) -> None:  # type: ignore[no-untyped-def]
    expected, state = whole.method.state_dict(), resumed.method.state_dict()
    assert expected.keys() == state.keys()
    assert all(torch.equal(expected[name], state[name]) for name in expected)
    timed = {"epoch_seconds", "timestamp_ms", "data_wait_share"}
    for row, other in zip(whole.history, resumed.history, strict=True):
        assert {key: row[key] for key in row.keys() - timed} == {key: other[key] for key in other.keys() - timed}


@CASES
def test_resumed_after_an_epoch_equals_uninterrupted_to_the_bit(
    world: Callable[..., Any],
    settings_for: Callable[..., Settings],
    train: Callable[..., Any],
    method: str,
    changes: dict[str, Any],
) -> None:
    short = {"epochs": 3, "steps_per_epoch": 4}
    settings = settings_for(method, 1, train=short, model={"dropout": 0.5}, **changes)
    tiles = world(1)
    whole = train(tiles, settings, "whole")
    with pytest.raises(PulledPlugError):
        train(tiles, settings, "broken", pull_after_two)
    torch.manual_seed(12345)  # what happened in between must not matter
    assert_same(whole, train(tiles, settings, "broken"))


@CASES
def test_resumed_within_an_epoch_equals_uninterrupted_to_the_bit(
    world: Callable[..., Any],
    settings_for: Callable[..., Settings],
    train: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    changes: dict[str, Any],
) -> None:
    short = {"epochs": 2, "steps_per_epoch": 5, "checkpoint_steps": 2, "ema": 0.9, "warmup": 0.2}
    settings = settings_for(method, 1, train=short, model={"dropout": 0.5}, **changes)
    tiles = world(1)
    whole = train(tiles, settings, "whole")
    steps = []
    step = _Run._run_step

    def pull_in_the_ninth(run, batch):  # type: ignore[no-untyped-def]
        steps.append((run.position.epoch, run.position.step))
        if len(steps) == 9:
            raise PulledPlugError
        step(run, batch)

    monkeypatch.setattr(_Run, "_run_step", pull_in_the_ninth)
    with pytest.raises(PulledPlugError):
        train(tiles, settings, "broken")
    torch.manual_seed(12345)
    resumed = train(tiles, settings, "broken")
    assert steps[8:] == [(1, 3), (1, 2), (1, 3), (1, 4)], "goes on from the last checkpoint, not from the epoch's start"
    assert_same(whole, resumed)
