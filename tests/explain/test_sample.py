"""Tiles to explain are chosen by predicted class and group, without labels."""

from __future__ import annotations

import inspect
from collections import Counter

import numpy as np
import pytest

from oncoshift.errors import DataError
from oncoshift.explain.sample import pick_tiles

IDS = np.array([f"tile-{number:03d}" for number in range(200)])
PROBABILITIES = np.random.default_rng(0).random(200)
GROUPS = np.array([f"patient-{number % 20}" for number in range(200)])


def test_it_takes_no_labels() -> None:
    assert list(inspect.signature(pick_tiles).parameters) == ["tile_ids", "probabilities", "groups", "count", "seed"]


def test_half_of_each_predicted_class_benign_first() -> None:
    called = PROBABILITIES[pick_tiles(IDS, PROBABILITIES, GROUPS, 16)] >= 0.5
    assert called.tolist() == [False] * 8 + [True] * 8


def test_the_choice_is_the_same_in_any_order_of_the_tiles() -> None:
    first = IDS[pick_tiles(IDS, PROBABILITIES, GROUPS, 16)]
    order = np.random.default_rng(1).permutation(200)
    again = IDS[order][pick_tiles(IDS[order], PROBABILITIES[order], GROUPS[order], 16)]
    assert again.tolist() == first.tolist()
    assert set(IDS[pick_tiles(IDS, PROBABILITIES, GROUPS, 16, seed=1)]) != set(first)


def test_groups_take_turns() -> None:
    picked = pick_tiles(IDS, PROBABILITIES, GROUPS, 16)
    assert max(Counter(GROUPS[picked[:8]]).values()) == 1
    assert max(Counter(GROUPS[picked[8:]]).values()) == 1
    lopsided = np.array(["big"] * 190 + ["small"] * 10)
    benign = pick_tiles(IDS, np.zeros(200), lopsided, 8)
    assert Counter(lopsided[benign]) == {"big": 4, "small": 4}


@pytest.mark.parametrize(("malignant", "expected"), [(0, 0), (3, 3), (197, 13), (200, 16)])
def test_a_class_that_is_short_is_made_up_by_the_other(malignant: int, expected: int) -> None:
    probabilities = np.where(np.arange(200) < malignant, 0.9, 0.1)
    picked = pick_tiles(IDS, probabilities, GROUPS, 16)
    assert len(set(picked.tolist())) == 16
    assert (probabilities[picked] >= 0.5).sum() == expected


def test_all_tiles_where_there_are_fewer_than_asked() -> None:
    assert sorted(pick_tiles(IDS[:5], PROBABILITIES[:5], GROUPS[:5], 16).tolist()) == [0, 1, 2, 3, 4]
    assert pick_tiles(IDS[:0], PROBABILITIES[:0], GROUPS[:0], 16).shape == (0,)


def test_an_odd_count_is_met() -> None:
    assert len(pick_tiles(IDS, PROBABILITIES, GROUPS, 7)) == 7


def test_ids_must_be_unique_and_shapes_equal() -> None:
    with pytest.raises(DataError, match="not unique"):
        pick_tiles(np.array(["a", "a"]), PROBABILITIES[:2], GROUPS[:2], 1)
    with pytest.raises(DataError, match=r"three \[N\]"):
        pick_tiles(IDS, PROBABILITIES[:, None], GROUPS, 1)
