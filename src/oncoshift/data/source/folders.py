"""Walking a data set's folders: which names are images, which are hidden, and where links lead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from oncoshift.data.names import is_hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp"})
"""Suffixes of image files, in lower case; files may have them in any case."""

OTHER_PICTURES = frozenset(
    {".gif", ".jp2", ".j2k", ".jpx", ".jpf", ".jxl", ".heic", ".heif", ".avif", ".pbm", ".pgm", ".ppm", ".pnm", ".tga",
     ".ico", ".psd", ".exr", ".dcm", ".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".vmu", ".vsi", ".czi", ".lif",
     ".qptiff"}
)  # fmt: skip
"""Suffixes of image formats that are not supported. Such a file among tiles is reported as unusable
and not skipped."""

TABLE_SUFFIXES = frozenset({".csv", ".h5"})
"""Suffixes of the files in which adapters find tiles, labels and groups."""

DEPTH = 4
"""Levels below the root at which an adapter looks for its folders: as published, and wrapped in one
or two more folders."""


def find_folders(root: Path, names: Collection[str], depth: int = DEPTH) -> list[Path]:
    """Find folders below `root` whose name, in lower case, is one of `names`, sorted.

    The search goes `depth` levels down and skips hidden folders and the inside of those found.
    """
    found: list[Path] = []
    level = [root] if root.is_dir() else []
    for _ in range(depth):
        inner = [folder for parent in level for folder in list_subfolders(parent)]
        found += [folder for folder in inner if folder.name.lower() in names]
        level = [folder for folder in inner if folder.name.lower() not in names]
    return sorted(found)


def list_subfolders(parent: Path) -> list[Path]:
    """List the subfolders, sorted, without hidden ones and those that are named like an image."""
    # A folder of 100,000 tiles is listed without a system call for each.
    with os.scandir(parent) as entries:
        return sorted(Path(entry.path) for entry in entries if _is_subfolder(entry))


def list_images(folder: Path) -> list[Path]:
    """List what has an image's name in a folder, sorted and not hidden, readable or not."""
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if is_image(entry.name))


def find_images(root: Path) -> Iterator[Path]:
    """Find files with an image's name at any depth below a folder; see `find_files`."""
    return (path for path in find_files(root) if is_image(path.name))


def find_files(
    root: Path,
    is_entered: Callable[[Path], bool] = lambda _: True,
    on_closed: Callable[[Path], None] | None = None,
) -> Iterator[Path]:
    """Find files at any depth below a folder, without hidden ones and those in hidden folders.

    Links are followed, dead links count as files, and a folder reached twice is listed once.

    Args:
        root: the folder.
        is_entered: decides whether to list a folder; called for each that is not hidden.
        on_closed: called with each folder that cannot be listed; None: the error is raised.

    Raises:
        OSError: a folder cannot be listed, and `on_closed` is None.
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


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image of any format, and not hidden."""
    suffix = Path(name).suffix.lower()
    return (suffix in IMAGE_SUFFIXES or suffix in OTHER_PICTURES) and not is_hidden(name)


def _is_subfolder(entry: os.DirEntry[str]) -> bool:
    return not is_hidden(entry.name) and not is_image(entry.name) and _is_folder(entry)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or into a folder without permission
        return False
