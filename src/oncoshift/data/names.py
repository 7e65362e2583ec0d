"""Names of files and groups: which are ignored, which are equal, and how they are shown."""

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
"""What systems and servers leave in folders, in lower case."""

_SURROGATE = 0xDC00
"""Where Python puts the bytes of a name that are not UTF-8 (PEP 383)."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no part of a data set: its name begins with a dot, or a system has left it there."""
    return name.startswith(".") or name.lower() in _HOUSEKEEPING


def is_text(name: str) -> bool:
    """Whether UTF-8 can write a name; Python holds other bytes of a file's name as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(name: str) -> str:
    r"""A name that UTF-8 can write: itself, or with its other bytes as `\xe9`."""
    return name if is_text(name) else escape_unprintable(name)


def escape_unprintable(text: str) -> str:
    """Escape, as `repr` does, line ends and other characters that are invisible or control a terminal."""
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    byte = ord(letter) - _SURROGATE
    return rf"\x{byte:02x}" if 0x80 <= byte <= 0xFF else repr(letter)[1:-1]


def to_normal_form(name: str) -> str:
    """Bring a name to Unicode's composed form (NFC); macOS stores letters and accents apart."""
    return unicodedata.normalize("NFC", name)


def fold_name(name: str) -> str:
    """Reduce a name to what a reader compares: no case, no blanks, no invisible characters."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in folded if letter.isprintable() and not letter.isspace())


def as_path_cell(path: str) -> str:
    """Guard a path in a CSV against spreadsheets that run formulas: `=x.png` becomes `./=x.png`, the same file."""
    return f"./{path}" if path.startswith(_FORMULA) else path


def as_text_cell(text: str) -> str:
    """Guard a text other than a path in a CSV likewise: `=1+1` becomes `'=1+1`."""
    return f"'{text}" if text.startswith(_FORMULA) else text


class Finder:
    """Finds files by listed names, in whichever of Unicode's forms the disk has them."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, str]] = {}

    def __call__(self, folder: Path, relative: PurePosixPath) -> Path | None:
        """Find the file or link (even a dead one) at `relative` below `folder`; None if there is none."""
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
        """Normal form → name of what is in a folder."""
        if folder not in self._listed:
            try:
                self._listed[folder] = {to_normal_form(path.name): path.name for path in folder.iterdir()}
            except OSError:
                self._listed[folder] = {}
        return self._listed[folder]
