"""Reading a user's CSV; every problem is one error with file, line and remedy."""

from __future__ import annotations

import csv
import math
from itertools import count
from typing import IO, TYPE_CHECKING

from oncoshift.errors import DataError
from oncoshift.serving.scale import SCALES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_LONGEST = 2**20
"""Most bytes of a line; a row of paths and names is a thousand times shorter."""

_SHOWN = 5


class BadRows:
    """The rows of a CSV that cannot be used, which one error lists.

    Args:
        path: the CSV.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems: list[str] = []

    def add(self, line: int, problem: ValueError) -> None:
        """Remember the row that begins on a line, and what is wrong with it."""
        self._problems.append(f"line {line}, {problem}")

    def refuse(self) -> None:
        """Raise if there is any such row.

        Raises:
            DataError: says how many there are, and what is wrong with the first of them.
        """
        if self._problems:
            hidden = len(self._problems) - _SHOWN
            more = f"\n… and {hidden} more" if hidden > 0 else ""
            shown = "\n".join(self._problems[:_SHOWN])
            raise DataError(f"{self._path}: {len(self._problems)} bad rows\n{shown}{more}")


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows below a CSV's header, each with the number of the line on which it begins.

    Args:
        path: UTF-8, with or without a byte order mark; commas between cells, double quotes around
            them where needed.
        columns: the required columns.

    Yields:
        The line number, and column → stripped cell; empty for cells missing at the end of a row.

    Raises:
        DataError: the file is not UTF-8 or contains a NUL byte, a quote is not closed or is closed
            inside a cell, a row has more cells than the header, or the header lacks a column or has
            one twice.
    """
    with path.open("rb") as file:
        reader = csv.reader(_read_lines(path, file), strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                cells = [cell.strip() for cell in next(reader)]
            except StopIteration:
                break
            except csv.Error as error:
                remedy = "look for a stray or a missing double quote"
                if "new-line character" in str(error):
                    remedy = "save it with line ends of Unix or Windows"
                raise DataError(f"{path}: line {line} is no row of a CSV ({error}); {remedy}") from None
            if header is None:
                header = cells
                _check_header(path, header, columns)
            elif any(cells):
                yield line, _parse_row(path, line, header, cells)
    if header is None:
        _check_header(path, [], columns)


def parse_scale(cell: str) -> float | None:
    """Parse a cell of the column `um_per_pixel`; None for an empty cell.

    Raises:
        ValueError: it is not a scale.
    """
    if not cell:
        return None
    try:
        scale = float(cell)
    except ValueError:
        scale = math.nan
    low, high = SCALES
    if not low <= scale <= high:
        raise ValueError(f"column um_per_pixel: {cell!r} is not a number from {low:g} to {high:g}")
    return scale


def _read_lines(path: Path, file: IO[bytes]) -> Iterator[str]:
    for number in count(1):
        line = file.readline(_LONGEST)
        if not line:
            return
        if b"\0" in line:
            raise DataError(f"{path}: line {number} holds NUL bytes, as UTF-16 does; save the file as UTF-8")
        if len(line) == _LONGEST:
            raise DataError(f"{path}: line {number} has more than {_LONGEST} bytes; this is no CSV of tiles")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            wrong = line[error.start : error.start + 1]
            raise DataError(
                f"{path}: line {number} is not UTF-8 (byte {wrong!r}, as Latin-1 has it); save the file as UTF-8, "
                "which spreadsheets call 'CSV UTF-8'"
            ) from None


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing and len(header) == 1 and ";" in header[0]:
        raise DataError(f"{path}: line 1 has semicolons between its columns; save the file with commas")
    if missing:
        raise DataError(f"{path}: line 1 lacks the columns {', '.join(missing)}; it has {', '.join(header) or 'none'}")
    twice = [column for column in columns if header.count(column) > 1]
    if twice:
        raise DataError(f"{path}: line 1 has the column {twice[0]} twice; keep the one that is meant")


def _parse_row(path: Path, line: int, header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if any(cells[len(header) :]):
        raise DataError(
            f"{path}: line {line} has {len(cells)} cells and the header {len(header)}; put double quotes around a cell "
            "with a comma in it"
        )
    return dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=False))
