"""Adapter `folder`: `root/<organ>/<label>/<tile>`, the layout for your own tiles.

A label folder is `benign`, `malignant`, or `unknown` (also `unlabelled`). Names of organs and
labels may be in any case, and the organs may lie one or two folders below the root, if nothing else
does. Files whose suffix is not that of an image are skipped and reported; hidden files and those
that systems leave in folders (`data.names`) are skipped silently.

Groups: a file named `<group>_<number>.<suffix>` belongs to `<group>`; any other is its own group.
Only the name counts: `lung/benign/p7_1.png` and `colon/malignant/p7_1.png` are both of group `p7`,
and so never on two sides of a split.

Licence: your own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oncoshift.data.source.adapters.base import LABEL_NUMBERS, NothingFitsError, RawTile, build_nothing_fits_error
from oncoshift.data.source.folders import list_images, list_subfolders
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.settings import IngestSettings

_GROUP_AND_NUMBER = re.compile(r"(?P<group>.+)_\d+")
_WRAPPED = 2

MARKER = "PHANTOM.txt"
"""The file at the root that marks made-up data."""


class FolderAdapter:
    """An adapter of tiles in one folder per organ and label.

    Args:
        ignored: folders beside the organs that are not organs.
    """

    title = "your own tiles: <organ>/<benign|malignant|unknown>/<group>_<number>.png"

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        self._ignored = ignored

    def fits(self, root: Path) -> bool:
        """See `Adapter.fits`."""
        folder = find_organs_folder(root)
        return not (folder / MARKER).is_file() and any(list_images(label) for label in _find_label_folders(folder))

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """See `Adapter.scan`. A tile_id is the path below the folder of the organs."""
        if not root.is_dir():
            raise DataError(f"ingest.root {root}: no such folder; expected {root}/<organ>/<label>/<tile>")
        base = find_organs_folder(root)
        if (base / MARKER).is_file() and not self._ignored:
            raise DataError(f"ingest.root {root}: holds the made-up data set; put your tiles elsewhere")
        tiles = [
            RawTile(path, path.relative_to(base).as_posix(), organ.name.lower(), label, parse_group(path.stem))
            for organ in list_subfolders(base)
            if organ.name not in self._ignored
            for folder in list_subfolders(organ)
            for label in [_parse_label(folder)]
            for path in _list_tiles(folder)
        ]
        if not tiles:
            raise build_nothing_fits_error(root, f"{root}/<organ>/<benign|malignant|unknown>/<tile>")
        return sorted(tiles, key=lambda tile: tile.tile_id)


def find_organs_folder(root: Path) -> Path:
    """Find the folder that holds the organs: the root, or the only folder in it, two levels deep.

    Returns:
        The root if no such folder is found.
    """
    folder = root
    for _ in range(_WRAPPED + 1):
        if _find_label_folders(folder):
            return folder
        inner = _list_readable(folder)
        if len(inner) != 1:
            return root
        folder = inner[0]
    return root


def parse_group(stem: str) -> str:
    """Parse the group from a file's stem: the part before `_<number>`, else all of it."""
    match = _GROUP_AND_NUMBER.fullmatch(stem)
    return match["group"] if match else stem


def _find_label_folders(folder: Path) -> list[Path]:
    return [
        label
        for organ in _list_readable(folder)
        for label in _list_readable(organ)
        if label.name.lower() in LABEL_NUMBERS
    ]


def _list_readable(folder: Path) -> list[Path]:
    """List the subfolders; none if the folder cannot be opened."""
    try:
        return list_subfolders(folder)
    except OSError:
        return []


def _parse_label(folder: Path) -> int:
    number = LABEL_NUMBERS.get(folder.name.lower())
    if number is None:
        raise NothingFitsError(
            f"{folder}: {folder.name!r} is not a label; rename the folder to one of {', '.join(LABEL_NUMBERS)}"
        )
    return number


def _list_tiles(folder: Path) -> list[Path]:
    nested = list_subfolders(folder)
    if nested:
        raise NothingFitsError(
            f"{nested[0]}: a folder inside a label; put its tiles into {folder} as <group>_<number>.png"
        )
    return list_images(folder)
