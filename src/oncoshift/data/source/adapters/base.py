"""What an adapter is and finds: tiles that are not opened yet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from oncoshift.data.names import as_text, is_hidden, normal_form
from oncoshift.data.source.passed_over import CLOSED, DEAD, ELSEWHERE
from oncoshift.data.tables import LABELS
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from oncoshift.data.source.passed_over import PassedOver
    from oncoshift.settings import IngestSettings

UNKNOWN = -1
"""The label's number where nobody knows it."""

BENIGN, MALIGNANT = 0, 1

LABEL_NUMBERS = {name: number for number, name in enumerate(LABELS)} | {"unknown": UNKNOWN, "unlabelled": UNKNOWN}
"""Words for a label in folder names and CSVs, and their numbers in the tables."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp"})
"""Suffixes of image files, in lower case; files may have them in any case."""

OTHER_PICTURES = frozenset(
    {".gif", ".jp2", ".j2k", ".jpx", ".jpf", ".jxl", ".heic", ".heif", ".avif", ".pbm", ".pgm", ".ppm", ".pnm", ".tga",
     ".ico", ".psd", ".exr", ".dcm", ".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".vmu", ".vsi", ".czi", ".lif",
     ".qptiff"}
)  # fmt: skip
"""Suffixes of pictures that are not read. Such a file among tiles is one that cannot be used, not one to pass over."""

DEPTH = 4
"""How far below the root an adapter looks for its folders: as published, and wrapped in one or two folders more."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class RawTile:
    """One image as the data set names it.

    Attributes:
        path: the file, as the disk has its name.
        tile_id: its POSIX path below the data set's root, made text.
        organ: the domain.
        label: 0 benign, 1 malignant, -1 unknown.
        group: patient, slide or original; never split. In Unicode's composed form, whichever the data set has.
        sha256_expected: hex SHA-256 that the data set promises, where it does.
    """

    path: Path
    tile_id: str
    organ: str
    label: int
    group: str
    sha256_expected: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tile_id", as_text(self.tile_id))
        object.__setattr__(self, "group", normal_form(as_text(self.group)))


class NothingFitsError(DataError):
    """There is nothing at the root that the adapter knows; another adapter may."""


def nothing_fits(root: Path, expected: str) -> NothingFitsError:
    """The error for a root where nothing is laid out as `expected`; it names what is there instead."""
    if not root.is_dir():
        return NothingFitsError(f"ingest.root {root}: no images, for it is no folder; expected {expected}")
    names = sorted(as_text(path.name) for path in root.iterdir() if not is_hidden(path.name))
    found = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return NothingFitsError(
        f"ingest.root {root}: no images as expected; expected {expected}; found {found or 'nothing'}"
    )


class Adapter(Protocol):
    """Knows one way to lay out a data set; see `oncoshift.data.source.scan.ADAPTERS`."""

    title: str
    """One line for `oncoshift ingest --list`: data set, layout, licence."""

    def fits(self, root: Path) -> bool:
        """Whether the folder `root` looks as if it were laid out so; never raises, opens little and writes nothing."""
        ...

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """List the tiles below `root`, sorted by tile_id, without opening them.

        Args:
            root: the data set.
            settings: section `ingest`.
            unpacked: a folder for tiles that are no image files yet; it need not exist.

        Raises:
            NothingFitsError: nothing at the root is laid out as the adapter expects.
            DataError: the data set cannot be used as it is.
        """
        ...


def folders_named(root: Path, names: Collection[str], depth: int = DEPTH) -> list[Path]:
    """Folders below `root` whose name, in lower case, is one of `names`; sorted, at most `depth` levels down.

    What is inside a folder that was found, and what is hidden, is not searched.
    """
    found: list[Path] = []
    level = [root] if root.is_dir() else []
    for _ in range(depth):
        inner = [folder for parent in level for folder in subfolders(parent)]
        found += [folder for folder in inner if folder.name.lower() in names]
        level = [folder for folder in inner if folder.name.lower() not in names]
    return sorted(found)


def subfolders(parent: Path) -> list[Path]:
    """Folders in a folder, sorted, without hidden ones and those that are named like an image."""
    # A folder of 100,000 tiles is listed without asking the disk about each.
    with os.scandir(parent) as entries:
        return sorted(Path(entry.path) for entry in entries if _is_inner(entry))


def images_in(folder: Path) -> list[Path]:
    """What stands in a folder under an image's name, sorted, without hidden ones: files, and what is none to read."""
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if is_image(entry.name))


def images_below(root: Path) -> Iterator[Path]:
    """Files with an image's name at any depth below a folder; see `files_below`."""
    return (path for path in files_below(root) if is_image(path.name))


def files_below(
    root: Path,
    is_entered: Callable[[Path], bool] = lambda _: True,
    on_closed: Callable[[Path], None] | None = None,
) -> Iterator[Path]:
    """Files at any depth below a folder, without hidden ones and what is in hidden folders.

    Links are followed, those that lead nowhere are files, and a folder that links reach twice is listed once.

    Args:
        root: the folder.
        is_entered: asked of each folder below it that is not hidden, before it is listed.
        on_closed: called with a folder that cannot be listed, and the rest goes on; None: its error is raised.

    Raises:
        OSError: a folder cannot be listed, and there is no `on_closed`.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                shown = sorted((entry.name, _is_folder(entry)) for entry in entries if not is_hidden(entry.name))
        except OSError:
            if on_closed is None:
                raise
            on_closed(folder)
            continue
        waiting += [folder / name for name, inner in reversed(shown) if inner and is_entered(folder / name)]
        yield from (folder / name for name, inner in shown if not inner)


def pass_over(root: Path, taken: Collection[Path], is_known: Callable[[Path], bool], found: PassedOver) -> None:
    """Count in `found` what is below a data set's folder and nobody took; nothing there stops the data set.

    A folder elsewhere, to which a link leads, is counted as one and not looked into, unless something in it was taken:
    there may be a whole disk behind it.

    Args:
        root: the folder.
        taken: the tiles' files.
        is_known: whether a file that is no tile is not to be counted.
        found: what was counted before.
    """
    files = set(taken)
    around = {folder for parent in {file.parent for file in files} for folder in (parent, *parent.parents)}
    inside = os.path.realpath(root)

    def is_entered(folder: Path) -> bool:
        if folder in around or not folder.is_symlink() or Path(os.path.realpath(folder)).is_relative_to(inside):
            return True
        found.add(folder.relative_to(root), ELSEWHERE)
        return False

    for path in files_below(root, is_entered, lambda folder: found.add(folder.relative_to(root), CLOSED)):
        if path not in files and not is_known(path):
            found.add(path.relative_to(root), None if os.path.exists(path) else DEAD)  # noqa: PTH110 - never raises


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image, of whatever format, which is not hidden."""
    suffix = Path(name).suffix.lower()
    return (suffix in IMAGE_SUFFIXES or suffix in OTHER_PICTURES) and not is_hidden(name)


def _is_inner(entry: os.DirEntry[str]) -> bool:
    return not is_hidden(entry.name) and not is_image(entry.name) and _is_folder(entry)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where one may not look
        return False


def own_groups(root: Path, folders: dict[Path, tuple[str, int]]) -> list[RawTile]:
    """The images in folders of an organ and label each, every name a group of its own; sorted by tile_id."""
    tiles = [
        RawTile(path, path.relative_to(root).as_posix(), organ, label, path.stem)
        for folder, (organ, label) in folders.items()
        for path in images_in(folder)
    ]
    return sorted(tiles, key=lambda tile: tile.tile_id)
