"""The quarantine keeps every readable tile, and reports when it cannot be written."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from oncoshift.data.source.adapters.base import RawTile
from oncoshift.data.validation.checks import Fault
from oncoshift.data.validation.inspection import Inspected
from oncoshift.data.validation.quarantine import LeftOut, write_quarantine
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def left_out(path: Path, tile_id: str) -> LeftOut:
    fault = Fault("unreadable", "no image")
    return LeftOut(Inspected(RawTile(path, tile_id, "lung", 0, "g"), None, None, fault), fault, tile_id, "benign")


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Limit every file of this process to `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_cannot_be_read_has_its_row_and_no_copy(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes(b"no image")
    (tmp_path / "folder.png").mkdir()
    tiles = [left_out(tmp_path / name, f"lung/{name}") for name in ("text.png", "folder.png", "gone.png")]
    tiles.append(left_out(tmp_path / "text.png" / "below.png", "lung/text.png/below.png"))
    write_quarantine(tmp_path / "out", tiles)
    assert [path.name for path in (tmp_path / "out" / "quarantine" / "lung").iterdir()] == ["text.png"]
    assert len((tmp_path / "out" / "quarantine.csv").read_text().splitlines()) == 5


def test_a_copy_that_cannot_be_written_stops_the_stage_and_leaves_nothing(tmp_path: Path) -> None:
    for name, size in (("small.png", 10), ("big.png", 5000)):
        (tmp_path / name).write_bytes(bytes(size))
    tiles = [left_out(tmp_path / name, name) for name in ("small.png", "big.png")]
    with (
        small_disk(4096),
        pytest.raises(
            DataError, match=r"big\.png: the copy of .* cannot be written \(File too large\); free disk space"
        ),
    ):
        write_quarantine(tmp_path / "out", tiles)
    assert not list((tmp_path / "out").iterdir())
