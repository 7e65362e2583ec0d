"""Leaks: copies of one original on two sides of a split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain, combinations
from typing import TYPE_CHECKING

from oncoshift.disjoint_sets import Forest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oncoshift.copies.join import Pair


@dataclass(frozen=True)
class SplitTile:
    """A tile of a split.

    Attributes:
        path: the image file.
        name: how the split names it, made text.
        split: which of the splits it is in.
        side: the side to which that split belongs; splits of one side may share originals.
    """

    path: Path
    name: str
    split: str
    side: str


@dataclass(frozen=True)
class Leak:
    """Two tiles of one original on two sides.

    Attributes:
        first: position of the tile whose split comes first by name.
        second: position of the other.
        score: of their pair, see `Pair`; None if they were not compared but are linked through
            other copies.
    """

    first: int
    second: int
    score: float | None


def find_leaks(tiles: Sequence[SplitTile], pairs: Sequence[Pair]) -> list[Leak]:
    """Find every tile with a copy on another side; source_train and target_train are one side.

    A thousand copies make a million pairs, so not all are listed: only the pairs that were
    compared, and for a tile that is linked to another side only through other copies, its pair with
    the first tile there. `count_leaks` counts all of them.

    Args:
        tiles: the split.
        pairs: positions of copies in `tiles`.

    Returns:
        The leaks: compared pairs first, by descending score.
    """
    sides = [tile.side for tile in tiles]
    scores: dict[tuple[int, int], float | None] = {
        (pair.first, pair.second): pair.score for pair in pairs if sides[pair.first] != sides[pair.second]
    }
    compared = set(chain.from_iterable(scores))
    for members in _group_copies(len(tiles), pairs):
        first_of: dict[str, int] = {}
        for position in members:
            first_of.setdefault(sides[position], position)
        for position in members:
            elsewhere = [first for side, first in first_of.items() if side != sides[position]]
            if elsewhere and position not in compared:
                other = min(elsewhere)
                scores.setdefault((min(position, other), max(position, other)), None)
    leaks = [Leak(first, second, score) for (first, second), score in scores.items()]
    return sorted(leaks, key=lambda leak: (-(leak.score or 0.0), leak.first, leak.second))


def count_leaks(tiles: Sequence[SplitTile], pairs: Sequence[Pair]) -> dict[tuple[str, str], int]:
    """Count the pairs of tiles of one original on two sides, by the sorted names of both splits."""
    side_of = {tile.split: tile.side for tile in tiles}
    counts: Counter[tuple[str, str]] = Counter()
    for members in _group_copies(len(tiles), pairs):
        in_split = sorted(Counter(tiles[position].split for position in members).items())
        for (one, ones), (other, others) in combinations(in_split, 2):
            if side_of[one] != side_of[other]:
                counts[one, other] += ones * others
    return dict(sorted(counts.items()))


def _group_copies(count: int, pairs: Sequence[Pair]) -> list[list[int]]:
    """List the ascending positions of the tiles of each original that has more than one."""
    forest = Forest(count)
    for pair in pairs:
        forest.join(pair.first, pair.second)
    members: dict[int, list[int]] = {}
    for position, root in enumerate(forest.find_roots()):
        members.setdefault(root, []).append(position)
    return [positions for positions in members.values() if len(positions) > 1]
