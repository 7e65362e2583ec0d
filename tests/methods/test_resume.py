"""A training that was killed between two epochs goes on to the same bits, for every method."""

from __future__ import annotations

import pytest
import torch

from oncoshift.methods.factory import TERMS

WITH_LABEL_SHIFT = {name: {name: {"label_shift": "reweight"}} for name in ("dann", "cdan", "dann_multi")}


class PulledPlugError(Exception):
    """Stands for a kill between two epochs."""


def pull_after_two(row: dict[str, float]) -> None:
    if row["epoch"] == 1:
        raise PulledPlugError


@pytest.mark.parametrize(
    ("method", "changes"),
    [(name, {}) for name in TERMS] + list(WITH_LABEL_SHIFT.items()),
    ids=[*TERMS, *(f"{name}-label-shift" for name in WITH_LABEL_SHIFT)],
)
def test_resumed_equals_uninterrupted_to_the_bit(world, settings_for, train, method, changes):
    short = {"epochs": 3, "steps_per_epoch": 4}
    settings = settings_for(method, 1, train=short, model={"dropout": 0.5}, **changes)
    tiles = world(1)
    whole = train(tiles, settings, "whole")
    with pytest.raises(PulledPlugError):
        train(tiles, settings, "broken", pull_after_two)
    torch.manual_seed(12345)  # whatever happened in between must not matter
    resumed = train(tiles, settings, "broken")
    expected, state = whole.method.state_dict(), resumed.method.state_dict()
    assert expected.keys() == state.keys()
    assert all(torch.equal(expected[name], state[name]) for name in expected)
    timed = {"epoch_seconds", "timestamp_ms"}
    for row, other in zip(whole.history, resumed.history, strict=True):
        assert {key: row[key] for key in row.keys() - timed} == {key: other[key] for key in other.keys() - timed}
