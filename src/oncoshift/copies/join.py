"""Joining groups that share an original, without pairs that would merge groups on weak evidence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.copies.verification import MIN_INLIERS
from oncoshift.disjoint_sets import Forest, merge_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STRONG = 2 * MIN_INLIERS
"""Inliers from which a single pair is believed; see `drop_weak_pairs`."""

_LARGE = 3
"""Tiles from which a set of copies counts as large: other copies should match it more than once."""


@dataclass(frozen=True)
class Pair:
    """Two tiles that are copies of one original.

    Attributes:
        first: position of one tile.
        second: position of the other, larger than `first`.
        score: correlation of the aligned tiles in their worst region, in [0.72, 1]; 1 for equal
            pixels.
    """

    first: int
    second: int
    score: float


def join_groups(groups: Sequence[str], pairs: Iterable[Pair]) -> list[str]:
    """Join the groups of tiles that are copies of one original.

    Args:
        groups: the group of each tile.
        pairs: positions of copies.

    Returns:
        A group for each tile. Joined groups take the name that comes first in sorted order, so the
        result does not depend on the order of the pairs.
    """
    names = merge_names((groups[pair.first], groups[pair.second]) for pair in pairs)
    return [names.get(group, group) for group in groups]


def drop_weak_pairs(count: int, pairs: Sequence[Pair], inliers: Sequence[int]) -> list[Pair]:
    """Drop weak pairs that would merge large sets of copies.

    One false pair among thousands would merge two groups, and a chain of them many. Sets of three
    or more tiles linked by strong pairs are large. If two large sets really show one original, more
    than one pair links them, so a single weak pair between them is dropped. A smaller set is joined
    through its best weak pair first and never bridges two large sets: any set that results contains
    at most one of them.

    Args:
        count: number of tiles.
        pairs: positions of copies.
        inliers: number of agreeing features of each pair; from `STRONG` on it is believed alone.

    Returns:
        The remaining pairs, in the order given. Which ones remain does not depend on that order.
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
