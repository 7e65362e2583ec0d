"""Reading a split in any of three forms, to search it for copies on two of its sides."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from oncoshift.copies.leaks import SplitTile
from oncoshift.data.names import Finder, as_text, is_hidden, to_normal_form
from oncoshift.data.parquet import read_table
from oncoshift.data.source.csv_rows import read_rows
from oncoshift.data.source.folders import find_images, list_subfolders
from oncoshift.data.split_checks import SIDES
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def read_split(where: Path) -> list[SplitTile]:
    """Read a split.

    Args:
        where: a folder of parquet files as stage `split` writes, with `../tiles/tiles.parquet`
            beside it; or a CSV with the columns `path` (relative to the CSV) and `split`; or a
            folder with one subfolder of images per split.

    Returns:
        The tiles, sorted by split and name.

    Raises:
        DataError: it is none of these, its text cannot be read, or it has fewer than two splits.
    """
    if where.is_file():
        tiles = _read_csv(where)
    elif any(where.glob("*.parquet")):
        tiles = _read_stage(where)
    elif where.is_dir():
        tiles = _read_folders(where)
    else:
        raise DataError(f"{where}: no such file or folder; name a folder of splits or a CSV with path and split")
    if len({tile.split for tile in tiles}) < 2:
        raise DataError(
            f"{where}: has fewer than two splits with tiles; expected parquet files of stage split, a CSV with the "
            "columns path and split, or a folder with one folder of images a split"
        )
    return sorted(tiles, key=lambda tile: (tile.split, tile.name))


def _read_stage(where: Path) -> list[SplitTile]:
    listed = read_table(where.parent / "tiles" / "tiles.parquet", ("tile_id", "path"), "ingest")
    paths = dict(zip(listed["tile_id"], listed["path"], strict=True))
    experiment = where.absolute().parent.parent
    tiles = []
    for file in sorted(where.glob("*.parquet")):
        names = read_table(file, ("tile_id",), "split")["tile_id"].tolist()
        absent = next((name for name in names if name not in paths), None)
        if absent is not None:
            raise DataError(f"{file}: tile {absent} is not in tiles.parquet; run `oncoshift split` again")
        tiles += [_make_tile(experiment / paths[name], name, file.stem) for name in names]
    return tiles


def _read_csv(where: Path) -> list[SplitTile]:
    find, folder = Finder(), where.parent
    rows = [(line, row["path"], row["split"]) for line, row in read_rows(where, ("path", "split"))]
    empty = next((line for line, path, split in rows if not path or not split), None)
    if empty is not None:
        raise DataError(f"{where}: line {empty} lacks its path or its split")
    return [
        _make_tile(find(folder, PurePosixPath(path)) or folder / path, path, to_normal_form(split))
        for _, path, split in rows
    ]


def _read_folders(where: Path) -> list[SplitTile]:
    gone = next((path for path in sorted(where.iterdir()) if _is_dead_link(path)), None)
    if gone is not None:
        raise DataError(
            f"{gone}: a link to {os.readlink(gone)}, where nothing is, and which may be one of the splits; mount or "  # noqa: PTH115
            "mend what it led to, or take it away"
        )
    return [
        _make_tile(file, as_text(file.relative_to(where).as_posix()), to_normal_form(as_text(folder.name)))
        for folder in list_subfolders(where)
        for file in find_images(folder)
    ]


def _is_dead_link(path: Path) -> bool:
    return path.is_symlink() and not is_hidden(path.name) and not os.path.exists(path)  # noqa: PTH110 - never raises


def _make_tile(path: Path, name: str, split: str) -> SplitTile:
    return SplitTile(path, name, split, SIDES.get(split, split))
