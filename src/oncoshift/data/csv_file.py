"""Writing of CSV files: in UTF-8, with the line ends of Unix, written whole or not at all."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from oncoshift.files import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a header and rows of texts; equal rows are equal bytes."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic(path) as temporary:
        temporary.write_text(lines.getvalue(), encoding="utf-8")
