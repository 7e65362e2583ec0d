"""Files of a data set that nothing reads: how many there are of each kind, so that none is dropped silently."""

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
"""Kinds that no suffix identifies."""

_NO_SUFFIX = "without a suffix"
_SHOWN = 8


@dataclass
class PassedOver:
    """Files that were passed over, by the suffix of their name, and what could not be looked into.

    Attributes:
        counts: suffix in lower case, with its dot, or one of the kinds above → number of files.
        first: the same → the first one's path below the data set's root, made text.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, path: PurePath, kind: str | None = None) -> None:
        """Count a file by its path below the data set's root; `kind` in place of its suffix."""
        kind = kind or as_text(path.suffix.lower()) or _NO_SUFFIX
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.first.setdefault(kind, as_text(path.as_posix()))

    def warnings(self) -> list[str]:
        """What to do about archives, dead links and closed folders, behind which tiles may be."""
        found = []
        packed = sorted(kind for kind in self.counts if kind in _PACKED)
        if packed:
            number, named = sum(self.counts[kind] for kind in packed), self.first[packed[0]]
            found.append(f"archives in the data set were not unpacked: {number}, for example {named}; unpack them")
        if DEAD in self.counts:
            found.append(f"links lead nowhere, for example {self.first[DEAD]}; mount or mend what they led to")
        if CLOSED in self.counts:
            found.append(f"folders may not be opened, for example {self.first[CLOSED]}; give yourself the right to it")
        return found


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

    for path in find_files(root, is_entered, lambda folder: found.add(folder.relative_to(root), CLOSED)):
        if path not in files and not is_known(path):
            found.add(path.relative_to(root), None if os.path.exists(path) else DEAD)  # noqa: PTH110 - never raises


def summarise(counts: Mapping[str, int]) -> str:
    """List the kinds of files and their numbers in one line, the most frequent first."""
    kinds = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(number for _, number in kinds[_SHOWN:])
    lines = [f"{number:,} {escape_unprintable(kind)}" for kind, number in kinds[:_SHOWN]]
    return ", ".join([*lines, f"{rest:,} of other kinds"] if rest else lines)
