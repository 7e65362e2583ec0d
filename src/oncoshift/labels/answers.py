"""The check of a filled-in sheet, and its merging with the labels that were applied before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from oncoshift.data.names import escape_unprintable
from oncoshift.errors import DataError
from oncoshift.files import sha256_file
from oncoshift.labels.table import COLUMNS, USES, WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oncoshift.labels.sheet import Row

_MOST = 20
"""Problems that an error lists."""


@dataclass(frozen=True)
class Merged:
    """Applied labels.

    Attributes:
        table: of all labels of the target, with the columns of `labels.table.COLUMNS`.
        new: number of tiles that had none before.
        corrected: number of tiles that had another.
        unanswered: number of rows without a label, which are left out.
    """

    table: pd.DataFrame
    new: int
    corrected: int
    unanswered: int


class _Tile(NamedTuple):
    """What a row must agree with: the tile's group and the hash of its file."""

    group: str
    sha256: str


def merge_answers(
    path: Path, rows: Sequence[Row], tiles: pd.DataFrame, before: pd.DataFrame, *, correct: bool = False
) -> Merged:
    """Check the rows of a sheet, and merge them with earlier labels; nothing earlier is lost.

    Args:
        path: of the CSV; pictures lie beside it.
        rows: of the CSV.
        tiles: of the target's training split, with columns tile_id, group and sha256.
        before: the labels that were applied before.
        correct: whether a label may replace an earlier one of the same tile.

    Raises:
        DataError: lists what is wrong, a line for each problem, with the line in the CSV.
    """
    columns = (tiles[name].tolist() for name in ("tile_id", "group", "sha256"))
    known = {tile_id: _Tile(group, sha256) for tile_id, group, sha256 in zip(*columns, strict=True)}
    earlier = dict(zip(before["tile_id"], before["label"], strict=True))
    problems = [
        f"line {row.line}: {problem}"
        for row in rows
        for problem in _check_row(row, known, path, None if correct else earlier.get(row.tile_id))
    ]
    problems += [f"line {line}: {problem}" for line, problem in _check_together(rows, known, before)]
    if problems:
        listed = "\n  ".join(map(escape_unprintable, problems[:_MOST]))
        more = f"\n  and {len(problems) - _MOST} more" if len(problems) > _MOST else ""
        raise DataError(f"{path}: nothing was applied, as these rows cannot be:\n  {listed}{more}")
    given = [row for row in rows if row.label]
    new = pd.DataFrame(
        [(row.tile_id, known[row.tile_id].group, row.use, row.word, row.sha256) for row in given],
        columns=list(COLUMNS),
        dtype=object,
    )
    kept = before[~before["tile_id"].isin(new["tile_id"])]
    corrected = sum(earlier.get(tile, label) != label for tile, label in zip(new["tile_id"], new["label"], strict=True))
    table = pd.concat([kept, new], ignore_index=True)
    return Merged(table, sum(row.tile_id not in earlier for row in given), corrected, len(rows) - len(given))


def _check_row(row: Row, known: dict[str, _Tile], path: Path, earlier: str | None) -> list[str]:
    """Check a row by itself."""
    tile = known.get(row.tile_id)
    if tile is None:
        where = "the target's training split here: it is mistyped, of another experiment, or held out"
        return [f"{row.tile_id!r} is no tile of {where}"]
    found = []
    if row.group != tile.group:
        found.append(f"group {row.group!r}, and the tile's is {tile.group!r}")
    if row.use not in USES:
        found.append(f"use {row.use!r} is none of {', '.join(USES)}")
    word = row.word
    if word and word not in WORDS:
        found.append(f"label {row.label!r} is none of {', '.join(WORDS)}; leave it empty if it is not known yet")
    elif word and earlier not in (None, word):
        found.append(f"was applied as {earlier} before, and is {word} now; --correct replaces it")
    if row.sha256 != tile.sha256:
        found.append("the tile's file has changed since it was proposed; propose again")
    elif word:
        found += _check_picture(path.parent / row.file, row.sha256)
    return found


def _check_picture(picture: Path, expected: str) -> list[str]:
    """Check that a picture beside the CSV is the tile: the label is of what was looked at."""
    if not picture.is_file():
        return [f"{picture} is gone; the CSV must stay beside its pictures"]
    return [] if sha256_file(picture) == expected else [f"{picture} has changed: it is not the tile"]


def _check_together(rows: Sequence[Row], known: dict[str, _Tile], before: pd.DataFrame) -> list[tuple[int, str]]:
    """Find tiles that come twice, and groups of two uses, among rows and earlier labels."""
    found = []
    uses: dict[str, str] = dict(zip(before["group"], before["use"], strict=True))
    where = dict.fromkeys(uses, "an earlier label")
    lines: dict[str, int] = {}
    for row in rows:
        if row.tile_id in lines:
            found.append((row.line, f"{row.tile_id!r} stands in line {lines[row.tile_id]} already"))
        lines.setdefault(row.tile_id, row.line)
        if row.tile_id not in known or row.use not in USES:
            continue
        group = known[row.tile_id].group
        if uses.setdefault(group, row.use) != row.use:
            both = f"to {row.use}, and {where[group]} uses it to {uses[group]}"
            found.append((row.line, f"group {group!r} is used {both}; what trains cannot judge"))
        where.setdefault(group, f"line {row.line}")
    return found
