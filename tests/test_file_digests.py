"""Files are written completely or not at all, and changed bytes are detected."""

from __future__ import annotations

import errno
import json
import math
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from oncoshift.files import (
    DamagedFileError,
    atomic,
    check_file,
    check_seal,
    read_json,
    seal,
    sweep,
    write_json,
    xxh3_file,
)

if TYPE_CHECKING:
    from pathlib import Path

VALUES = {"history": [{"loss": 0.1, "auroc": math.nan}], "organ": "Lunge ü", "of": {7: "x"}}


def flip(path: Path, position: int) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def test_what_fails_half_way_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fill_up() -> None:
        with atomic(path) as temporary:
            temporary.write_text("ne")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill_up()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


FILLS_UP = """
import resource, signal, sys
from pathlib import Path
from oncoshift.files import write_json
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    write_json(Path(sys.argv[1]), {"much": "x" * 100_000})
except OSError:
    sys.exit(7)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on the size of files here")
def test_a_disk_that_fills_up_leaves_no_temporary_file(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", FILLS_UP, str(tmp_path / "file")], check=False).returncode == 7
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_killed_processes_are_swept(tmp_path: Path) -> None:
    for name in (".a.pt.123.tmp", ".b.json.45.tmp", "a.pt", ".hidden"):
        (tmp_path / name).touch()
    sweep(tmp_path, of="a")
    assert {path.name for path in tmp_path.iterdir()} == {".b.json.45.tmp", "a.pt", ".hidden"}
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.pt", ".hidden"}


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "values.json", VALUES)
    back = read_json(tmp_path / "values.json", "history", "organ")
    assert math.isnan(back["history"][0].pop("auroc"))
    assert back == {"history": [{"loss": 0.1}], "organ": "Lunge ü", "of": {"7": "x"}}


@pytest.mark.parametrize("content", ["", "{", "null", "[1]", "{}", '{"histori": []}', "\udcff"])
def test_json_that_is_emptied_cut_or_garbled_is_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "values.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DamagedFileError, match=r"values\.json: damaged"):
        read_json(tmp_path / "values.json", "history")


def test_a_changed_figure_in_json_is_told_with_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    write_json(path, VALUES)
    expected = json.loads(path.read_text())["digest"]
    path.write_text(path.read_text().replace("0.1", "0.9"))
    with pytest.raises(DamagedFileError, match=rf"values\.json: damaged: expected XXH3 {expected}, found \w{{32}}$"):
        read_json(path, "history")


def test_json_of_an_earlier_version_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "values.json").write_text('{"history": [1]}')
    assert read_json(tmp_path / "values.json", "history") == {"history": [1]}
    assert "has no digest" in caplog.text


def test_every_bit_of_a_sealed_file_counts_the_seals_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    seal(path)
    check_seal(path)
    for position in (0, 50, 99, 100, 131):
        flip(path, position)
        with pytest.raises(DamagedFileError, match="expected XXH3"):
            check_seal(path)
        flip(path, position)
    check_seal(path)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 131])
def test_a_sealed_file_that_was_cut_is_damaged(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    seal(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedFileError):
        check_seal(path)


def test_a_file_or_its_beginning_is_compared_with_what_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"ab" * 200_000)
    whole, half = (xxh3_file(path, size).hexdigest() for size in (None, 200_000))
    check_file(path, whole)
    path.write_bytes(b"ab" * 100_000 + b"xy" * 100_000)
    check_file(path, half, 200_000)
    with pytest.raises(DamagedFileError, match=f"expected XXH3 {whole}"):
        check_file(path, whole)
    path.unlink()
    with pytest.raises(DamagedFileError, match="is gone"):
        check_file(path, whole)
