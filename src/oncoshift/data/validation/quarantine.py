"""The quarantine: quarantine.csv with the reason for each tile, and copies of the files."""

from __future__ import annotations

import csv
import io
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from oncoshift.data.names import as_path_cell
from oncoshift.errors import DataError
from oncoshift.files import atomic
from oncoshift.serving.images import UnreadableImageError, read_image_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from oncoshift.data.validation.checks import Fault
    from oncoshift.data.validation.inspection import Inspected

COLUMNS = ("path", "organ", "label", "kind", "reason")

_NOT_COPIED = ("missing", "outside", "not_utf8", "duplicate", "named_twice")
"""Kinds of faults whose files are not copied: there is nothing to copy, it belongs elsewhere, only
the name is wrong, or a kept tile has the same bytes."""


@dataclass(frozen=True)
class LeftOut:
    """A tile that cannot be used.

    Attributes:
        inspected: the tile.
        fault: why.
        path: its file, as tables name it.
        label: the label's name.
    """

    inspected: Inspected
    fault: Fault
    path: str
    label: str

    @property
    def is_bad(self) -> bool:
        """Whether the file is faulty; a duplicate is only superfluous."""
        return self.fault.kind != "duplicate"


def write_quarantine(out: Path, left_out: Sequence[LeftOut]) -> None:
    """Write `out`/quarantine.csv and `out`/quarantine/<tile_id>, replacing those of earlier runs.

    Duplicates of tiles that are kept and files that cannot be read are not copied.

    Raises:
        DataError: a copy cannot be written, for example because the disk is full.
    """
    with replacing_folder(out / "quarantine") as folder:
        for one in left_out:
            if one.fault.kind not in _NOT_COPIED:
                _copy(one.inspected.tile.path, folder / _confine(one.inspected.tile.tile_id))
    lines = io.StringIO()
    rows = [
        (as_path_cell(one.path), one.inspected.tile.organ, one.label, one.fault.kind, one.fault.reason)
        for one in left_out
    ]
    csv.writer(lines, lineterminator="\n").writerows([COLUMNS, *rows])
    with atomic(out / "quarantine.csv") as temporary:
        temporary.write_text(lines.getvalue(), encoding="utf-8")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` on success, unless it stays empty."""
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        shutil.rmtree(folder, ignore_errors=True)
        if any(fresh.iterdir()):
            fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    try:
        data = read_image_file(source)
    except UnreadableImageError:
        return  # it could not be read for the checks either, as its row in the table says
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    except OSError as error:
        raise DataError(
            f"{target}: the copy of {source} for the quarantine cannot be written ({error.strerror}); free disk space "
            "or allow writing there, and run it again"
        ) from error


def _confine(tile_id: str) -> PurePosixPath:
    """Convert a tile_id to a path that cannot leave the quarantine."""
    return PurePosixPath(*(part for part in PurePosixPath(tile_id).parts if part not in ("..", "/")))
