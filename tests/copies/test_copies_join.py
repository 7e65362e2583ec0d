"""Groups are joined regardless of the order of pairs, and never on a single weak pair."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncoshift.copies import Pair, join_groups
from oncoshift.copies.join import STRONG, drop_weak_pairs
from oncoshift.data.validation.groups import warn_of_large_groups

GROUPS = ["b", "b", "a", "c", "d", "d"]


def test_joined_groups_take_the_first_name_and_keep_all_their_tiles() -> None:
    assert join_groups(GROUPS, [Pair(0, 3, 0.9)]) == ["b", "b", "a", "b", "d", "d"]
    assert join_groups(GROUPS, [Pair(1, 2, 0.9), Pair(3, 4, 0.9)]) == ["a", "a", "a", "c", "c", "c"]
    assert join_groups(GROUPS, []) == GROUPS
    assert join_groups([], []) == []


@settings(max_examples=60, deadline=None)
@given(
    edges=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=14),
    order=st.randoms(use_true_random=False),
)
def test_groups_are_the_connected_components_in_any_order(edges: list[tuple[int, int]], order: random.Random) -> None:
    groups = [f"g{position // 2}" for position in range(12)]
    pairs = [Pair(min(edge), max(edge), 1.0) for edge in edges]
    joined = join_groups(groups, pairs)
    shuffled = list(pairs)
    order.shuffle(shuffled)
    assert join_groups(groups, shuffled) == joined
    reached = [{position ^ 1, position} for position in range(12)]
    for _ in range(12):
        for one, other in edges:
            merged = reached[one] | reached[other]
            for position in merged:
                reached[position] = reached[position] | merged
        for position in range(12):
            reached[position] = set().union(*(reached[other] for other in reached[position]))
    for one, other in itertools.product(range(12), repeat=2):
        assert (joined[one] == joined[other]) == (other in reached[one])


def test_a_single_weak_pair_does_not_weld_two_large_sets() -> None:
    left, right = [Pair(0, 1, 0.9), Pair(1, 2, 0.9)], [Pair(3, 4, 0.9), Pair(4, 5, 0.9)]
    sets = [*left, *right]
    strong = [STRONG] * len(sets)
    weld, second = Pair(2, 3, 0.75), Pair(0, 5, 0.75)
    assert drop_weak_pairs(7, [*sets, weld], [*strong, STRONG - 1]) == sets
    assert drop_weak_pairs(7, [*sets, weld, second], [*strong, STRONG - 1, STRONG - 1]) == [*sets, weld, second]
    assert drop_weak_pairs(7, [*sets, weld], [*strong, STRONG]) == [*sets, weld]


def test_a_weak_pair_may_bring_a_tile_to_a_set() -> None:
    sets = [Pair(0, 1, 0.9), Pair(1, 2, 0.9)]
    assert drop_weak_pairs(4, [*sets, Pair(2, 3, 0.75)], [STRONG, STRONG, STRONG - 1]) == [*sets, Pair(2, 3, 0.75)]


CHAIN = [Pair(0, 1, 0.9), Pair(1, 2, 0.9), Pair(3, 4, 0.9), Pair(4, 5, 0.9)]
"""Two sets of three tiles; tile 6 belongs to neither."""


@pytest.mark.parametrize(
    ("to_first", "to_second", "kept"), [(0.75, 0.8, (5, 6)), (0.8, 0.75, (2, 6)), (0.75, 0.75, (2, 6))]
)
def test_a_tile_that_is_weakly_linked_to_two_large_sets_joins_the_better_one(
    to_first: float, to_second: float, kept: tuple[int, int]
) -> None:
    pairs = [*CHAIN, Pair(2, 6, to_first), Pair(5, 6, to_second)]
    inliers = [STRONG] * 4 + [STRONG - 1] * 2
    believed = drop_weak_pairs(7, pairs, inliers)
    assert [(pair.first, pair.second) for pair in believed[4:]] == [kept]
    order = random.Random(0).sample(range(6), 6)
    again = drop_weak_pairs(7, [pairs[k] for k in order], [inliers[k] for k in order])
    assert sorted(again, key=pairs.index) == believed


@pytest.mark.parametrize("bridge", [[Pair(2, 6, 0.8), Pair(1, 6, 0.8), Pair(5, 6, 0.9), Pair(4, 6, 0.9)],
                                    [Pair(2, 6, 0.8), Pair(6, 7, 0.9), Pair(5, 7, 0.8)]])  # fmt: skip
def test_small_sets_are_no_bridge_between_large_ones(bridge: list[Pair]) -> None:
    pairs = [*CHAIN, *bridge]
    groups = join_groups(
        [str(tile) for tile in range(8)], drop_weak_pairs(8, pairs, [STRONG] * 4 + [STRONG - 1] * len(bridge))
    )
    assert groups[0] != groups[3]
    assert groups[6] in (groups[0], groups[3])


def test_weak_pairs_inside_a_set_are_kept() -> None:
    pairs = [*CHAIN, Pair(0, 2, 0.75)]
    assert drop_weak_pairs(6, pairs, [STRONG] * 4 + [STRONG - 1]) == pairs


def test_a_joined_group_that_holds_much_of_the_data_is_warned_of() -> None:
    joined = ["a"] * 30 + ["b"] * 25 + [f"c{tile}" for tile in range(345)]
    (first, second) = warn_of_large_groups(joined)
    assert first.startswith("group a holds 30 of 400 tiles (8%), joined from 30 groups")
    assert second.startswith("group b ")
    assert warn_of_large_groups(joined, before=["a"] * 20 + ["d"] * 10 + joined[30:]) == [
        first.replace("from 30", "from 2")
    ]
    assert warn_of_large_groups(["a"] * 20 + joined[:0]) == []
    assert warn_of_large_groups(["a"] * 21 + [str(tile) for tile in range(400)]) == []
