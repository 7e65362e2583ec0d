"""The choice of tiles: a tile a group in turn, spread over the score, and one use for a group."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from oncoshift.labels.choice import choose_tiles
from oncoshift.labels.table import GATE, TRAIN, USES

if TYPE_CHECKING:
    from oncoshift.labels.choice import Chosen

GROUPS = np.repeat([f"p{number:02}" for number in range(12)], 10)
SCORE = np.random.default_rng(0).normal(np.repeat(np.linspace(-1, 1, 12), 10), 0.3)


def choose(train: int, gate: int, **given: object) -> list[Chosen]:
    return choose_tiles(GROUPS, SCORE, {TRAIN: train, GATE: gate}, **given)  # type: ignore[arg-type]


def groups_of(chosen: list[Chosen], use: str) -> Counter[str]:
    return Counter(str(GROUPS[each.position]) for each in chosen if each.use == use)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    train=st.integers(0, 15),
    gate=st.integers(0, 15),
    seed=st.integers(0, 5),
)
def test_a_group_has_one_use_and_no_tile_comes_twice(sizes: list[int], train: int, gate: int, seed: int) -> None:
    groups = np.repeat([f"g{number}" for number in range(len(sizes))], sizes)
    score = np.random.default_rng(seed).normal(size=len(groups)).round(1)  # with ties
    chosen = choose_tiles(groups, score, {TRAIN: train, GATE: gate}, seed=seed)
    uses: dict[str, set[str]] = {}
    for each in chosen:
        uses.setdefault(str(groups[each.position]), set()).add(each.use)
    assert all(len(found) == 1 for found in uses.values())
    assert len({each.position for each in chosen}) == len(chosen) <= train + gate
    if train and gate and len(sizes) > 1:
        assert {each.use for each in chosen} == set(USES)
    if train and not gate:
        assert len(chosen) == min(train, len(groups)), "all that is wanted, as far as there is any"


def test_each_group_gives_a_tile_before_one_gives_two() -> None:
    chosen = choose(9, 9)
    for use in USES:
        counts = groups_of(chosen, use)
        assert len(counts) == 6
        assert max(counts.values()) - min(counts.values()) <= 1
    assert not set(groups_of(chosen, TRAIN)) & set(groups_of(chosen, GATE))


def test_both_uses_see_the_whole_range_of_the_score() -> None:
    rank = SCORE.argsort().argsort() / len(SCORE)
    for seed in range(5):
        chosen = choose(8, 8, seed=seed)
        for use in USES:
            seen = np.sort([rank[each.position] for each in chosen if each.use == use])
            assert seen[1] < 0.35
            assert seen[-2] > 0.65
            assert abs(seen.mean() - 0.5) < 0.15


def test_shares_of_groups_follow_the_shares_of_tiles() -> None:
    chosen = choose(9, 3)
    assert len(groups_of(chosen, TRAIN)) == 9
    assert len(groups_of(chosen, GATE)) == 3


def test_groups_with_labels_keep_their_use_and_their_tiles_are_not_asked_for_again() -> None:
    asked = np.zeros(len(GROUPS), bool)
    asked[[0, 1, 2]] = True  # of p00
    chosen = choose(12, 12, known={"p00": GATE, "p01": TRAIN}, asked=asked)
    assert not {0, 1, 2} & {each.position for each in chosen}
    assert "p00" not in groups_of(chosen, TRAIN)
    assert "p01" not in groups_of(chosen, GATE)
    assert groups_of(chosen, GATE)["p00"] == 0, "it has three labels, and the other groups come first"


def test_a_choice_is_the_same_for_the_same_seed() -> None:
    assert choose(5, 5) == choose(5, 5)
    assert choose(5, 5) != choose(5, 5, seed=1)
