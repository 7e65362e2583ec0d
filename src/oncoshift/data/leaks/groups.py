"""Joins groups that share an original, and drops pairs that would weld groups on too little evidence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from oncoshift.data.groups import Forest, merged_names
from oncoshift.data.leaks.verify import MIN_AGREEING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oncoshift.data.leaks.pairs import Pair

STRONG = 2 * MIN_AGREEING
"""Features that agree by which a pair stands alone; see `supported`."""

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
    names = merged_names((groups[pair.first], groups[pair.second]) for pair in pairs)
    return [names.get(group, group) for group in groups]


def supported(count: int, pairs: Sequence[Pair], agreeing: Sequence[int]) -> list[Pair]:
    """Drop the weak pairs that are all that links two sets of copies of three or more tiles each.

    One false pair among thousands would make one group of two, and so on along the chain. Sets of copies this large
    are linked by more than one pair if they are truly one, so a single weak pair is not believed.

    Args:
        count: number of tiles.
        pairs: positions of copies.
        agreeing: for each pair how many features agree; from `STRONG` on it is believed alone.

    Returns:
        The pairs that are believed, in the order given.
    """
    forest = Forest(count)
    for pair, features in zip(pairs, agreeing, strict=True):
        if features >= STRONG:
            forest.join(pair.first, pair.second)
    roots = forest.roots()
    sizes = Counter(roots)
    links = Counter(_link(roots, pair) for pair in pairs)
    return [
        pair
        for pair, features in zip(pairs, agreeing, strict=True)
        if features >= STRONG
        or links[_link(roots, pair)] > 1
        or min(sizes[roots[pair.first]], sizes[roots[pair.second]]) < _LARGE
    ]


def _link(roots: Sequence[int], pair: Pair) -> tuple[int, int]:
    one, other = roots[pair.first], roots[pair.second]
    return min(one, other), max(one, other)
