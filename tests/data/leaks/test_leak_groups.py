"""Groups are joined whatever the order of the pairs, and not on a single weak pair."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from oncoshift.data.leaks import Pair, join_groups
from oncoshift.data.leaks.groups import STRONG, supported

if TYPE_CHECKING:
    import random

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
    assert supported(7, [*sets, weld], [*strong, STRONG - 1]) == sets
    assert supported(7, [*sets, weld, second], [*strong, STRONG - 1, STRONG - 1]) == [*sets, weld, second]
    assert supported(7, [*sets, weld], [*strong, STRONG]) == [*sets, weld]


def test_a_weak_pair_may_bring_a_tile_to_a_set() -> None:
    sets = [Pair(0, 1, 0.9), Pair(1, 2, 0.9)]
    assert supported(4, [*sets, Pair(2, 3, 0.75)], [STRONG, STRONG, STRONG - 1]) == [*sets, Pair(2, 3, 0.75)]
