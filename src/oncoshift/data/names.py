"""Names of files and groups: which are ignored, which are equal, and how they are displayed."""

from __future__ import annotations

import os
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

_HOUSEKEEPING = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "thumbs.db",
     "ehthumbs.db", "desktop.ini", "__pycache__"}
)  # fmt: skip
"""Files that operating systems and servers leave in folders, in lower case."""

_SURROGATE = 0xDC00
"""Offset of the code points by which Python represents bytes that are not UTF-8 (PEP 383)."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not part of a data set: a dot file or one that a system left."""
    return name.startswith(".") or name.lower() in _HOUSEKEEPING


def is_text(name: str) -> bool:
    """Whether a name can be encoded as UTF-8; other bytes of file names are lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(name: str) -> str:
    r"""Return the name with bytes that are not UTF-8 escaped, for example as `\xe9`."""
    return name if is_text(name) else escape_unprintable(name)


def escape_unprintable(text: str) -> str:
    """Escape line ends and other invisible or control characters, as `repr` does."""
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    byte = ord(letter) - _SURROGATE
    return rf"\x{byte:02x}" if 0x80 <= byte <= 0xFF else repr(letter)[1:-1]


def to_normal_form(name: str) -> str:
    """Convert a name to Unicode's composed form (NFC); macOS stores accents separately."""
    return unicodedata.normalize("NFC", name)


def fold_name(name: str) -> str:
    """Fold a name for comparison: without case, blanks and invisible characters."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in folded if letter.isprintable() and not letter.isspace())


def as_path_cell(path: str) -> str:
    """Protect a path in a CSV from being run as a formula: `=x.png` becomes `./=x.png`.

    Both name the same file.
    """
    return f"./{path}" if path.startswith(_FORMULA) else path


def as_text_cell(text: str) -> str:
    """Protect other text in a CSV from being run as a formula: `=1+1` becomes `'=1+1`."""
    return f"'{text}" if text.startswith(_FORMULA) else text


class Finder:
    """A finder of files by name that accepts both of Unicode's forms on disk."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, str]] = {}

    def __call__(self, folder: Path, relative: PurePosixPath) -> Path | None:
        """Find the file or link, even a dead one, at `relative` below `folder`; else None."""
        path = folder / relative
        if os.path.lexists(path):
            return path
        if str(relative).isascii():
            return None
        for part in relative.parts:
            name = self._names(folder).get(to_normal_form(part))
            if name is None:
                return None
            folder /= name
        return folder

    def _names(self, folder: Path) -> dict[str, str]:
        """Map the normal form of each name in a folder to the name itself."""
        if folder not in self._listed:
            try:
                self._listed[folder] = {to_normal_form(path.name): path.name for path in folder.iterdir()}
            except OSError:
                self._listed[folder] = {}
        return self._listed[folder]
