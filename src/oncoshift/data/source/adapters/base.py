"""The interface of adapters, and the tiles that they list without opening them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from oncoshift.data.names import as_text, is_hidden, to_normal_form
from oncoshift.data.source.folders import list_images
from oncoshift.data.tables import LABELS, UNKNOWN
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.settings import IngestSettings

BENIGN, MALIGNANT = 0, 1

LABEL_NUMBERS = {name: number for number, name in enumerate(LABELS)} | {"unknown": UNKNOWN, "unlabelled": UNKNOWN}
"""Words for a label in folder names and CSVs, and their numbers in the tables."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class RawTile:
    """One image as listed by the data set.

    Attributes:
        path: the file, named as on disk.
        tile_id: its POSIX path below the data set's root, as printable text.
        organ: the domain.
        label: 0 benign, 1 malignant, -1 unknown.
        group: patient, slide or original; never split. Always in Unicode's composed form.
        sha256_expected: hex SHA-256 that the data set declares, if it does.
        um_per_pixel: scale that the data set declares, if it does.
    """

    path: Path
    tile_id: str
    organ: str
    label: int
    group: str
    sha256_expected: str | None = None
    um_per_pixel: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tile_id", as_text(self.tile_id))
        object.__setattr__(self, "group", to_normal_form(as_text(self.group)))


class NothingFitsError(DataError):
    """Nothing at the root fits the adapter; another adapter may fit."""


def build_nothing_fits_error(root: Path, expected: str) -> NothingFitsError:
    """Build the error for a root without the `expected` layout; it names what is there instead."""
    if not root.is_dir():
        return NothingFitsError(f"ingest.root {root}: it is not a folder; expected {expected}")
    names = sorted(as_text(path.name) for path in root.iterdir() if not is_hidden(path.name))
    found = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return NothingFitsError(
        f"ingest.root {root}: no images as expected; expected {expected}; found {found or 'nothing'}"
    )


class Adapter(Protocol):
    """A reader of one layout of data sets; see `oncoshift.data.source.adapters.registry`."""

    title: str
    """One line for `oncoshift ingest --list`: data set, layout, licence."""

    def fits(self, root: Path) -> bool:
        """Whether `root` seems to have this layout; quick, writes nothing, never raises."""
        ...

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """List the tiles below `root`, sorted by tile_id, without opening them; writes nothing.

        Args:
            root: the data set.
            settings: section `ingest`.
            unpacked: where an adapter that `WritesTiles` has written them.

        Raises:
            NothingFitsError: nothing at the root is laid out as the adapter expects.
            DataError: the data set cannot be used as it is.
        """
        ...


@runtime_checkable
class WritesTiles(Protocol):
    """An adapter of tiles that have to be extracted into image files first."""

    def write_tiles(self, root: Path, unpacked: Path) -> None:
        """Write the tiles below `root`, if any, to the folder `unpacked`, which need not exist.

        Raises:
            DataError: the data set cannot be used as it is.
        """
        ...


def list_ungrouped_tiles(root: Path, folders: dict[Path, tuple[str, int]]) -> list[RawTile]:
    """List the images in folders of one organ and label each, each image its own group.

    Args:
        root: the data set.
        folders: folder → its organ and label.

    Returns:
        The tiles, sorted by tile_id.
    """
    tiles = [
        RawTile(path, path.relative_to(root).as_posix(), organ, label, path.stem)
        for folder, (organ, label) in folders.items()
        for path in list_images(folder)
    ]
    return sorted(tiles, key=lambda tile: tile.tile_id)
