"""Files of a data set that nothing reads, counted by kind so that none is dropped silently."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from oncoshift.data.names import as_text, escape_unprintable
from oncoshift.data.source.folders import find_files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import PurePath

_PACKED = frozenset({".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar", ".tar", ".zip"})
DEAD = "links that lead nowhere"
CLOSED = "folders that may not be opened"
ELSEWHERE = "links to folders elsewhere"
"""Kinds other than suffixes."""

_NO_SUFFIX = "without a suffix"
_SHOWN = 8


@dataclass
class PassedOver:
    """Files that were passed over, and folders that could not be opened.

    Attributes:
        counts: suffix in lower case, with its dot, or one of the kinds above → number of files.
        first: the same → path of the first one below the data set's root, as printable text.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, path: PurePath, kind: str | None = None) -> None:
        """Count a file by its path below the data set's root, under `kind` or else its suffix."""
        kind = kind or as_text(path.suffix.lower()) or _NO_SUFFIX
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.first.setdefault(kind, as_text(path.as_posix()))

    def warnings(self) -> list[str]:
        """Warn of archives, dead links and closed folders, which may hide tiles."""
        found = []
        packed = sorted(kind for kind in self.counts if kind in _PACKED)
        if packed:
            number, named = sum(self.counts[kind] for kind in packed), self.first[packed[0]]
            found.append(f"archives in the data set were not unpacked: {number}, for example {named}; unpack them")
        if DEAD in self.counts:
            found.append(f"links lead nowhere, for example {self.first[DEAD]}; mount or restore what they led to")
        if CLOSED in self.counts:
            found.append(f"folders cannot be opened, for example {self.first[CLOSED]}; change their permissions")
        return found


def pass_over(root: Path, taken: Collection[Path], is_known: Callable[[Path], bool], found: PassedOver) -> None:
    """Count the files below a data set's folder that no one read; add them to `found`.

    A link to a folder elsewhere is counted as one file and not entered unless a tile in it was
    taken, because a whole disk may be behind it. Nothing here raises.

    Args:
        root: the folder.
        taken: the tiles' files.
        is_known: whether a file that is not a tile is left uncounted.
        found: the counts so far.
    """
    files = set(taken)
    around = {folder for parent in {file.parent for file in files} for folder in (parent, *parent.parents)}
    inside = os.path.realpath(root)

    def is_entered(folder: Path) -> bool:
        if folder in around or not folder.is_symlink() or Path(os.path.realpath(folder)).is_relative_to(inside):
            return True
        found.add(folder.relative_to(root), ELSEWHERE)
        return False

    for path in find_files(root, is_entered, lambda folder: found.add(folder.relative_to(root), CLOSED)):
        if path not in files and not is_known(path):
            found.add(path.relative_to(root), None if os.path.exists(path) else DEAD)  # noqa: PTH110 - never raises


def summarise(counts: Mapping[str, int]) -> str:
    """List the kinds of files with their numbers in one line, the most frequent first."""
    kinds = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(number for _, number in kinds[_SHOWN:])
    lines = [f"{number:,} {escape_unprintable(kind)}" for kind, number in kinds[:_SHOWN]]
    return ", ".join([*lines, f"{rest:,} of other kinds"] if rest else lines)
