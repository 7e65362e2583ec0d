"""Programs end with the right exit code and words on stderr, and their streams take any text."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from oncoshift.errors import SettingsError, TrainingInterrupted, UnavailableError
from oncoshift.program import run_program


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (SettingsError("seed: no"), 2, "error: seed: no\n"),
        (UnavailableError("no answer"), 69, "error: no answer\n"),
        (TrainingInterrupted("later"), 75, "stopped: later\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_is_expected_ends_in_one_line_and_a_code_of_its_own(
    capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, words: str
) -> None:
    def body() -> None:
        raise raised

    assert run_program(body) == code
    assert capsys.readouterr().err == words


@pytest.mark.parametrize("fault", [ZeroDivisionError, BrokenPipeError])
def test_a_crash_is_no_users_mistake(capsys: pytest.CaptureFixture[str], fault: type[Exception]) -> None:
    """A broken pipe other than the program's own output is a crash, too."""
    code = (
        "import sys; from oncoshift.program import run_program\n"
        f"def body(): raise {fault.__name__}\n"
        "sys.exit(run_program(body))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("crashed: ")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "Permission denied; give this user the right to it, or work in another folder"),
        (errno.EROFS, "Read-only file system; work in a folder that can be written to"),
        (errno.ENOSPC, "No space left on device; make room, and start it again"),
    ],
)
def test_a_file_that_the_system_refuses_is_named_with_a_remedy(
    capsys: pytest.CaptureFixture[str], number: int, words: str
) -> None:
    def body() -> None:
        raise OSError(number, os.strerror(number), "/data/tiles.parquet")

    assert run_program(body) == 2
    assert capsys.readouterr().err == f"error: /data/tiles.parquet: {words}\n"


def test_a_disk_that_is_full_is_no_crash_though_the_system_names_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(lambda: print(Path("/dev/full").write_text("line"))) == 2
    assert capsys.readouterr().err == "error: No space left on device; make room, and start it again\n"


def test_output_for_which_there_is_no_room_is_no_crash() -> None:
    code = "import sys; from oncoshift.program import run_program\nsys.exit(run_program(lambda: print('line')))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: No space left on device; make room, and start it again\n")


def test_a_crash_shows_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        raise RuntimeError("no answer from https://anna:hunter2@host/")

    assert run_program(body) == 70
    assert "hunter2" not in (shown := capsys.readouterr().err)
    assert "RuntimeError: no answer from https://host/" in shown


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_body_may_choose_its_code(returned: int | None, code: int) -> None:
    assert run_program(lambda: returned) == code


def program(body: str, **options: str) -> subprocess.Popen[bytes]:
    code = f"import sys; from oncoshift.program import run_program\nsys.exit(run_program(lambda: {body}))"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**options, "PATH": ""}
    )


def test_streams_without_the_letters_show_them_as_escapes(tmp_path: Path) -> None:
    done = program("print('λ → é', '\\udcff')", PYTHONIOENCODING="ascii", PYTHONPATH=":".join(sys.path))
    out, err = done.communicate()
    assert (done.returncode, err) == (0, b"")
    assert out == rb"\u03bb \u2192 \xe9 \udcff" + b"\n"


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    done = program("print('line\\n' * 100_000)", PYTHONPATH=":".join(sys.path))
    assert done.stdout is not None
    assert done.stderr is not None
    assert done.stdout.readline() == b"line\n"
    done.stdout.close()
    assert done.stderr.read() == b""
    assert done.wait(timeout=60) == 141
