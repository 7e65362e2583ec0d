"""What an adapter finds: tiles that are not opened yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from oncoshift.data.tables import LABELS

if TYPE_CHECKING:
    from pathlib import Path

UNKNOWN = -1
"""The label's number where nobody knows it."""

LABEL_NUMBERS = {name: number for number, name in enumerate(LABELS)} | {"unknown": UNKNOWN, "unlabelled": UNKNOWN}
"""Words for a label in folder names and CSVs, and their numbers in the tables."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
"""Suffixes of image files, in lower case; files may have them in any case."""


@dataclass(frozen=True)
class RawTile:
    """One image as the data set names it.

    Attributes:
        path: the file.
        tile_id: its POSIX path below the data set's root.
        organ: the domain.
        label: 0 benign, 1 malignant, -1 unknown.
        group: patient, slide or original; never split.
        sha256_expected: hex SHA-256 that the data set promises, where it does.
    """

    path: Path
    tile_id: str
    organ: str
    label: int
    group: str
    sha256_expected: str | None = None


class Adapter(Protocol):
    """Knows one way to lay out a data set; see `oncoshift.data.adapters.ADAPTERS`."""

    def scan(self, root: Path) -> list[RawTile]:
        """List the tiles below `root`, sorted by tile_id, without opening them.

        Raises:
            DataError: the data set is not laid out as the adapter expects.
        """
        ...
