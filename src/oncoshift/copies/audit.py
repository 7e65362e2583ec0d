"""Audits a split: reads it in any of three forms, and finds copies that stand on two of its sides."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from oncoshift.data.groups import Forest
from oncoshift.data.names import Finder, as_text, is_hidden, normal_form
from oncoshift.data.parquet import read_table
from oncoshift.data.source.adapters.base import images_below, subfolders
from oncoshift.data.source.csv_rows import read_rows
from oncoshift.data.split_checks import SIDES
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oncoshift.copies.pairs import Pair


@dataclass(frozen=True)
class SplitTile:
    """A tile of a split.

    Attributes:
        path: the image file.
        name: how the split names it, made text.
        split: which of the splits it is in.
    """

    path: Path
    name: str
    split: str


@dataclass(frozen=True)
class Leak:
    """Two tiles of one original on two sides.

    Attributes:
        first: position of the tile whose split comes first by name.
        second: position of the other.
        score: their agreement; None where they were not compared, but are linked through other copies.
    """

    first: int
    second: int
    score: float | None


def read_split(where: Path) -> list[SplitTile]:
    """Read a split.

    Args:
        where: a folder of parquet files as stage `split` writes, with `../tiles/tiles.parquet` beside it; or a CSV with
            the columns `path` (relative to the CSV) and `split`; or a folder with one folder of images a split.

    Returns:
        The tiles, sorted by split and name.

    Raises:
        DataError: it is none of these, its text cannot be read, or it has fewer than two splits.
    """
    if where.is_file():
        tiles = _of_csv(where)
    elif any(where.glob("*.parquet")):
        tiles = _of_stage(where)
    elif where.is_dir():
        tiles = _of_folders(where)
    else:
        raise DataError(f"{where}: no such file or folder; name a folder of splits or a CSV with path and split")
    if len({tile.split for tile in tiles}) < 2:
        raise DataError(
            f"{where}: has fewer than two splits with tiles; expected parquet files of stage split, a CSV with the "
            "columns path and split, or a folder with one folder of images a split"
        )
    return sorted(tiles, key=lambda tile: (tile.split, tile.name))


def find_leaks(tiles: Sequence[SplitTile], pairs: Sequence[Pair]) -> list[Leak]:
    """Every tile with a copy on another side; source_train and target_train are one side, see `SIDES`.

    Not all pairs are listed, of which a thousand copies have a million: those that were compared are, and a tile that
    is linked to the other sides through others alone stands with the first tile there. `count_leaks` counts them all.

    Args:
        tiles: the split.
        pairs: positions of copies in `tiles`.

    Returns:
        The leaks, those that were compared first, best score first.
    """
    sides = [SIDES.get(tile.split, tile.split) for tile in tiles]
    scores: dict[tuple[int, int], float | None] = {
        (pair.first, pair.second): pair.score for pair in pairs if sides[pair.first] != sides[pair.second]
    }
    compared = set(chain.from_iterable(scores))
    for members in _copies(len(tiles), pairs):
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
    """Pairs of tiles that show one original on two sides, for each two splits that have any, sorted by name."""
    counts: Counter[tuple[str, str]] = Counter()
    for members in _copies(len(tiles), pairs):
        in_split = sorted(Counter(tiles[position].split for position in members).items())
        for (one, ones), (other, others) in combinations(in_split, 2):
            if SIDES.get(one, one) != SIDES.get(other, other):
                counts[one, other] += ones * others
    return dict(sorted(counts.items()))


def _copies(count: int, pairs: Sequence[Pair]) -> list[list[int]]:
    """Positions of the tiles of each original that has several, ascending."""
    forest = Forest(count)
    for pair in pairs:
        forest.join(pair.first, pair.second)
    members: dict[int, list[int]] = {}
    for position, root in enumerate(forest.roots()):
        members.setdefault(root, []).append(position)
    return [positions for positions in members.values() if len(positions) > 1]


def _of_stage(where: Path) -> list[SplitTile]:
    listed = read_table(where.parent / "tiles" / "tiles.parquet", ("tile_id", "path"), "ingest")
    paths = dict(zip(listed["tile_id"], listed["path"], strict=True))
    experiment = where.absolute().parent.parent
    tiles = []
    for file in sorted(where.glob("*.parquet")):
        names = read_table(file, ("tile_id",), "split")["tile_id"].tolist()
        absent = next((name for name in names if name not in paths), None)
        if absent is not None:
            raise DataError(f"{file}: tile {absent} is not in tiles.parquet; run `oncoshift split` again")
        tiles += [SplitTile(experiment / paths[name], name, file.stem) for name in names]
    return tiles


def _of_csv(where: Path) -> list[SplitTile]:
    find, folder = Finder(), where.parent
    rows = [(line, row["path"], row["split"]) for line, row in read_rows(where, ("path", "split"))]
    empty = next((line for line, path, split in rows if not path or not split), None)
    if empty is not None:
        raise DataError(f"{where}: line {empty} lacks its path or its split")
    return [
        SplitTile(find(folder, PurePosixPath(path)) or folder / path, path, normal_form(split))
        for _, path, split in rows
    ]


def _of_folders(where: Path) -> list[SplitTile]:
    gone = next((path for path in sorted(where.iterdir()) if _is_gone(path)), None)
    if gone is not None:
        raise DataError(
            f"{gone}: a link to {os.readlink(gone)}, where nothing is, and which may be one of the splits; mount or "  # noqa: PTH115
            "mend what it led to, or take it away"
        )
    return [
        SplitTile(file, as_text(file.relative_to(where).as_posix()), normal_form(as_text(folder.name)))
        for folder in subfolders(where)
        for file in images_below(folder)
    ]


def _is_gone(path: Path) -> bool:
    return path.is_symlink() and not is_hidden(path.name) and not os.path.exists(path)  # noqa: PTH110 - never raises
