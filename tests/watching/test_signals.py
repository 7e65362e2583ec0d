"""Drift is found by the signal that it concerns, and chance raises few alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from oncoshift.settings import WatchSettings
from oncoshift.watching.profile import MEASURES, Profile
from oncoshift.watching.signals import compare, find_least_p

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncoshift.watching.signals import Signal

SETTINGS = WatchSettings(permutations=199)


def make_profile(seed: int, groups: int, moved: Mapping[str, float] | None = None, tiles: int = 4) -> Profile:
    """Make a profile whose groups differ as patients do; `moved` shifts what it names."""
    rng = np.random.default_rng(seed)
    shifts = moved or {}
    of_tile = np.repeat(np.arange(groups), tiles)

    def draw(width: int) -> np.ndarray:
        return rng.normal(size=(groups, width))[of_tile] + 0.5 * rng.normal(size=(groups * tiles, width))

    table = pd.DataFrame(np.exp(0.1 * draw(len(MEASURES))), columns=list(MEASURES))
    for name in set(shifts) & set(MEASURES):
        table[name] *= np.exp(shifts[name])
    table = table.assign(tile="", group=of_tile, probability=rng.random(groups)[of_tile], abstain="", error="")
    features = (draw(8) + shifts.get("embedding", 0.0)).astype(np.float32)
    return Profile(table, features / np.linalg.norm(features, axis=1, keepdims=True), 0.5)


def list_alarms(signals: Sequence[Signal]) -> set[str]:
    return {signal.name for signal in signals if signal.alarm}


REFERENCE = make_profile(0, 60)


@pytest.mark.parametrize(
    ("moved", "expected"),
    [({"density_red": 0.5}, "stain"), ({"sharpness": -0.5}, "quality"), ({"embedding": 1.5}, "embedding")],
)
def test_a_shift_is_found_by_its_signal(moved: dict[str, float], expected: str) -> None:
    assert list_alarms(compare(REFERENCE, make_profile(1, 15, moved), SETTINGS)) == {expected}


def test_another_share_of_malignant_tiles_is_found() -> None:
    batch = make_profile(1, 20)
    batch.tiles["probability"] = 0.1
    assert list_alarms(compare(REFERENCE, batch, SETTINGS)) == {"malignant"}


def test_abstentions_are_found_and_do_not_enter_the_other_signals() -> None:
    batch = make_profile(2, 20)
    batch.tiles.loc[::2, "sharpness"] = 0.0001
    assert list_alarms(compare(REFERENCE, batch, SETTINGS)) == {"quality"}
    batch.tiles.loc[::2, "abstain"] = "blurred"
    assert list_alarms(compare(REFERENCE, batch, SETTINGS)) == {"abstained"}


def test_a_batch_of_which_nothing_can_be_judged_is_an_alarm() -> None:
    batch = make_profile(1, 20)
    batch.tiles["error"] = "cannot be decoded"
    (signal,) = compare(REFERENCE, batch, SETTINGS)
    assert (signal.name, signal.shift, signal.alarm) == ("abstained", 1.0, True)


def test_unchanged_batches_raise_few_alarms() -> None:
    """Without a limit on the size of a shift: 40 batches, of which 5 % may alarm."""
    settings = WatchSettings(permutations=199, least_shift=0, least_share=0)
    pairs = [(make_profile(2 * n, 30), make_profile(2 * n + 1, 10)) for n in range(40)]
    alarms = sum(bool(list_alarms(compare(*pair, settings))) for pair in pairs)
    assert alarms <= 5  # of binomial(40, 0.05), 99 % are at most that


def test_tiles_of_one_patient_are_not_taken_for_a_shift() -> None:
    """Many tiles of few patients differ from training as these patients do, which is no drift."""
    batches = [make_profile(seed, 2, tiles=100) for seed in range(1, 21)]
    alarms = sum(bool(list_alarms(compare(REFERENCE, batch, SETTINGS))) for batch in batches)
    assert alarms <= 3


def test_a_small_difference_is_no_alarm_however_sure() -> None:
    settings = SETTINGS.model_copy(update={"least_shift": 0.5})
    signals = compare(REFERENCE, make_profile(1, 60, {"density_red": 0.04}), settings)
    (found,) = (signal for signal in signals if signal.name == "stain")
    assert found.p < settings.false_alarms
    assert found.shift < settings.least_shift
    assert not found.alarm


def test_too_few_groups_cannot_give_a_small_p() -> None:
    assert find_least_p(make_profile(0, 4), make_profile(1, 1)) == pytest.approx(0.2)
    assert find_least_p(REFERENCE, make_profile(1, 10)) < 1e-9
