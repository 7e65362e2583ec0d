"""The tiles to score: the images of a folder, the rows of a CSV, or the members of an archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from oncoshift.data.names import Finder, as_text
from oncoshift.data.source.archives import TAR_SUFFIXES, ZIP_SUFFIXES, is_archive
from oncoshift.data.source.csv_rows import parse_scale, read_rows
from oncoshift.data.source.folders import find_files, is_image
from oncoshift.data.source.members import read_images
from oncoshift.errors import DataError
from oncoshift.serving.images import read_image_file
from oncoshift.serving.limits import UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile to score.

    Attributes:
        name: its path below the folder, in the CSV or in the archive, as printable text; unique.
        content: its file, its bytes, or the reason why there are none.
        group: patient, slide or original, if known.
        um_per_pixel: its scale, if known.
    """

    name: str
    content: Path | bytes | UnreadableImageError
    group: str | None = None
    um_per_pixel: float | None = None

    def read(self) -> bytes:
        """Read the bytes of the image file.

        Raises:
            UnreadableImageError: they cannot be read.
        """
        if isinstance(self.content, UnreadableImageError):
            raise self.content
        return read_image_file(self.content) if isinstance(self.content, Path) else self.content


@dataclass(frozen=True)
class TileInput:
    """A folder, CSV or archive of tiles.

    Args:
        path: a folder; a CSV with the column `path` and optionally `group` and `um_per_pixel`; or a
            .zip or .tar.

    Raises:
        DataError: there is nothing at the path, or it is none of these.
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise DataError(f"{self.path}: no such folder or file")
        if not (self.path.is_dir() or is_archive(self.path) or is_table(self.path)):
            known = ", ".join((".csv", *ZIP_SUFFIXES, *TAR_SUFFIXES))
            raise DataError(f"{self.path}: name a folder of tiles, or a file that ends with one of {known}")

    def count(self) -> int:
        """Count the tiles without opening them.

        Raises:
            DataError: there are none, or they cannot be listed.
        """
        total = sum(1 for _ in self.list_tiles())
        if not total:
            raise DataError(f"{self.path}: no tiles in it; a tile is a PNG, JPEG, TIFF, BMP or WebP file")
        return total

    def list_tiles(self) -> Iterator[Tile]:
        """Yield the tiles in a fixed order without opening them; those of an archive have no bytes.

        Raises:
            DataError: they cannot be listed.
        """
        return self._list(frozenset(), names_only=True)

    def read(self, done: frozenset[str]) -> Iterator[Tile]:
        """Yield the tiles in a fixed order, except those that are done.

        Args:
            done: names of tiles to leave out.

        Raises:
            DataError: the input cannot be read, or names a tile twice.
        """
        seen: set[str] = set()
        for tile in self._list(done, names_only=False):
            if tile.name in seen:
                raise DataError(f"{self.path}: {tile.name} is in it twice; remove or rename one of them")
            seen.add(tile.name)
            if tile.name not in done:
                yield tile

    def _list(self, done: frozenset[str], *, names_only: bool) -> Iterator[Tile]:
        if self.path.is_dir():
            return self._list_folder()
        return self._list_table() if is_table(self.path) else self._list_archive(done, names_only=names_only)

    def _list_folder(self) -> Iterator[Tile]:
        for path in find_images(self.path):
            yield Tile(as_text(path.relative_to(self.path).as_posix()), path)

    def _list_table(self) -> Iterator[Tile]:
        find, folder = Finder(), self.path.parent
        for line, row in read_rows(self.path, ("path",)):
            if not row["path"]:
                raise DataError(f"{self.path}: line {line}, column path: is empty")
            relative = PurePosixPath(row["path"])
            path = find(folder, relative) or folder / relative
            try:
                scale = parse_scale(row.get("um_per_pixel", ""))
            except ValueError as error:
                raise DataError(f"{self.path}: line {line}, {error}") from None
            yield Tile(as_text(row["path"]), path, group=row.get("group") or None, um_per_pixel=scale)

    def _list_archive(self, done: frozenset[str], *, names_only: bool) -> Iterator[Tile]:
        for name, load in read_images(self.path):
            if names_only or name in done:
                yield Tile(name, b"")
                continue
            try:
                yield Tile(name, load())
            except UnreadableImageError as error:
                yield Tile(name, error)


def is_table(path: Path) -> bool:
    """Return whether a path is that of a CSV, by its suffix."""
    return path.suffix.lower() == ".csv"


def find_images(root: Path) -> Iterator[Path]:
    """Find what is named like an image below a folder, and folders that cannot be opened."""
    closed: list[Path] = []

    def enter(folder: Path) -> bool:
        if is_image(folder.name):
            closed.append(folder)
        return True

    yield from (file for file in find_files(root, enter, closed.append) if is_image(file.name))
    yield from dict.fromkeys(closed)
