"""A full or failing disk is reported as one error with place and remedy."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from oncoshift.errors import DataError
from oncoshift.files import writing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_names_the_folder_and_the_room(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(DataError, match=r"packs: the disk is full \(.*\): [\d,]+ MB are free, and in the end .* 7 MB;"),
        writing(tmp_path / "data" / "packs", 7_000_000),
    ):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EISDIR])
def test_a_place_that_may_not_be_opened_is_named(tmp_path: Path, number: int) -> None:
    with pytest.raises(DataError, match=rf"x\.csv: {os.strerror(number)}; give yourself"), writing(tmp_path):
        raise OSError(number, os.strerror(number), tmp_path / "x.csv")


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is no folder that you may write to"), writing(tmp_path / "file" / "out"):
        pytest.fail("the work has begun")
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path)
    with (
        pytest.raises(DataError, match=r"out: cannot be written, for .* work elsewhere"),
        writing(tmp_path / "a" / "out"),
    ):
        pytest.fail("the work has begun")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd"), writing(tmp_path):
        raise OSError(errno.EIO, "odd")
