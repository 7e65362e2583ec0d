"""Joins groups that share an original, and drops pairs that would weld groups on weak evidence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from oncoshift.copies.verification import MIN_INLIERS
from oncoshift.disjoint_sets import Forest, merge_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oncoshift.copies.pairs import Pair

STRONG = 2 * MIN_INLIERS
"""Features that agree by which a pair stands alone; see `drop_weak_pairs`."""

_LARGE = 3
"""Tiles from which on a set of copies is one that should be reached more than once."""


def join_groups(groups: Sequence[str], pairs: Iterable[Pair]) -> list[str]:
    """Join the groups of tiles that are copies of one original.

    Args:
        groups: the group of each tile.
        pairs: positions of copies.

    Returns:
        A group for each tile. Joined groups take the name that comes first in sorted order, so the result does not
        depend on the order of the pairs.
    """
    names = merge_names((groups[pair.first], groups[pair.second]) for pair in pairs)
    return [names.get(group, group) for group in groups]


def drop_weak_pairs(count: int, pairs: Sequence[Pair], inliers: Sequence[int]) -> list[Pair]:
    """Drop weak pairs that would weld large sets of copies.

    One false pair among thousands would make one group of two, and so on along the chain. Sets of three or more tiles
    that strong pairs link are large. If two of them are truly one, more than one pair links them, so a single weak pair
    between them is not believed. A smaller set is joined by its best weak pair first, and never bridges two
    large sets: whatever it is part of holds one large set at most.

    Args:
        count: number of tiles.
        pairs: positions of copies.
        inliers: for each pair how many features agree; from `STRONG` on it is believed alone.

    Returns:
        The pairs that are believed, in the order given; which they are does not depend on that order.
    """
    forest = Forest(count)
    for pair, features in zip(pairs, inliers, strict=True):
        if features >= STRONG:
            forest.join(pair.first, pair.second)
    roots = forest.find_roots()
    large = {root for root, size in Counter(roots).items() if size >= _LARGE}
    links: dict[tuple[int, int], list[float]] = {}
    for pair in pairs:
        one, other = sorted((roots[pair.first], roots[pair.second]))
        if one != other:
            links.setdefault((one, other), []).append(pair.score)
    for (one, other), scores in links.items():
        if len(scores) > 1 and one in large and other in large:
            forest.join(one, other)
    holds_large = {forest.find(root) for root in large}
    for one, other in sorted(links, key=lambda link: (-max(links[link]), link)):
        ends = {forest.find(one), forest.find(other)}
        if not ends <= holds_large:
            forest.join(one, other)
            if ends & holds_large:
                holds_large.add(forest.find(one))
    return [pair for pair in pairs if forest.find(pair.first) == forest.find(pair.second)]
