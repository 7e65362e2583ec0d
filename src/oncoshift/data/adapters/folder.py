"""Adapter `folder`: `root/<organ>/<label>/<tile>`.

A label folder is `benign`, `malignant`, or `unknown` (also `unlabelled`). A file named `<group>_<number>.<suffix>`
belongs to `<group>`; any other is a group of its own. The name alone counts: `lung/benign/p7_1.png` and
`colon/malignant/p7_1.png` are of one group `p7`, and so never on two sides of a split. Files that are no images by
their suffix are passed over, and so are hidden ones.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oncoshift.data.adapters.base import IMAGE_SUFFIXES, LABEL_NUMBERS, RawTile
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

_GROUP_AND_NUMBER = re.compile(r"(?P<group>.+)_\d+")

MARKER = "PHANTOM.txt"
"""The file at the root that says that the data are made up."""


class FolderAdapter:
    """Tiles in a folder for each organ and label.

    Args:
        ignored: folders directly below the root that are no organs.
    """

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        self._ignored = ignored

    def scan(self, root: Path) -> list[RawTile]:
        """See `Adapter.scan`."""
        if not root.is_dir():
            raise DataError(f"ingest.root {root}: no such folder; expected {root}/<organ>/<label>/<tile>")
        if (root / MARKER).is_file() and not self._ignored:
            raise DataError(f"ingest.root {root}: holds the made-up data set; put your tiles elsewhere")
        tiles = [
            RawTile(path, path.relative_to(root).as_posix(), organ.name, _label(folder), group_of(path.stem))
            for organ in _folders(root)
            if organ.name not in self._ignored
            for folder in _folders(organ)
            for path in _images(folder)
        ]
        if not tiles:
            raise DataError(f"ingest.root {root}: no images; expected {root}/<organ>/<benign|malignant|unknown>/<tile>")
        return sorted(tiles, key=lambda tile: tile.tile_id)


def group_of(stem: str) -> str:
    """The group in a file's name without its suffix: what stands before `_<number>`, else all of it."""
    match = _GROUP_AND_NUMBER.fullmatch(stem)
    return match["group"] if match else stem


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _label(folder: Path) -> int:
    number = LABEL_NUMBERS.get(folder.name)
    if number is None:
        raise DataError(
            f"{folder}: {folder.name!r} is no label; rename the folder to one of {', '.join(LABEL_NUMBERS)}"
        )
    return number


def _images(folder: Path) -> list[Path]:
    nested = _folders(folder)
    if nested:
        raise DataError(f"{nested[0]}: a folder inside a label; put its tiles into {folder} as <group>_<number>.png")
    return [
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
