"""`score` gives every image a row that any program can read, and needs only what it was given."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.cli import main
from oncoshift.commands import scoring


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three tiles inside the test's working directory."""
    (tmp_path / "tiles").mkdir()
    for seed in range(3):
        Image.fromarray(tissue(seed)).save(tmp_path / "tiles" / f"{seed}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    return tmp_path / "tiles"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_each_image_has_its_row_whatever_it_is(
    model_folder: Path, given: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BATCH_IMAGES", 2)
    os.mkfifo(given / "pipe.png")
    (given / "folder.png").mkdir()
    Image.fromarray(tissue(3)).save(given / "folder.png" / "inside.jpg")
    (given / "broken.png").symlink_to("nowhere")
    (given / "text.png").write_text("no image")
    assert main(["score", "--model", str(model_folder), "tiles"]) == 0
    printed = capsys.readouterr()
    found = {row["path"]: row for row in rows(printed.out)}
    scored = ["tiles/0.png", "tiles/1.png", "tiles/2.png", "tiles/folder.png/inside.jpg"]
    assert [path for path, row in found.items() if row["probability"]] == scored
    errors = {path: row["error"] for path, row in found.items() if path not in scored}
    assert {path: words[:20] for path, words in errors.items()} == {
        "tiles/broken.png": "cannot read the file",
        "tiles/folder.png": "cannot read the file",
        "tiles/pipe.png": "not a regular file: ",
        "tiles/text.png": "8 bytes are no image",
    }
    assert "4 of 8 images could not be scored" in printed.err


def test_a_folder_is_searched_as_a_data_set_is(
    model_folder: Path, given: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("elsewhere", "tiles/@eaDir/1.png", "tiles/__MACOSX", "tiles/closed"):
        (given.parent / folder).mkdir(parents=True)
        Image.fromarray(tissue(4)).save(given.parent / folder / "x.png")
    (given / "linked").symlink_to(given.parent / "elsewhere")
    (given / "circle").symlink_to(given)
    listed = os.scandir

    def refuse(folder: Path) -> Any:
        if Path(folder).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return listed(folder)

    monkeypatch.setattr("os.scandir", refuse)
    assert main(["score", "--model", str(model_folder), "tiles"]) == 0
    assert {row["path"]: bool(row["error"]) for row in rows(capsys.readouterr().out)} == {
        "tiles/0.png": False, "tiles/1.png": False, "tiles/2.png": False, "tiles/closed": True,
        "tiles/linked/x.png": False,
    }  # fmt: skip


def test_strict_ends_with_one_where_an_image_is_unreadable(
    model_folder: Path, given: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", "--strict", "--model", str(model_folder), "tiles"]
    assert main(command) == 0
    (given / "text.png").write_text("no image")
    assert main(command) == 1
    assert "1 of 4 images" in capsys.readouterr().err


def test_json_is_an_object_a_line(model_folder: Path, given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (given / "text.png").write_text("no image")
    assert main(["score", "--json", "--model", str(model_folder), "tiles"]) == 0
    first, *_, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert list(first) == ["path", "probability", "label", "shift", "abstain", "error"]
    assert (first["path"], first["error"]) == ("tiles/0.png", None)
    assert first["probability"] == pytest.approx(0.5, abs=0.5)
    assert (last["probability"], last["label"], last["shift"], last["abstain"]) == (None, None, None, None)
    assert last["error"]


def test_batches_end_by_bytes_as_well(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(given.iterdir())
    assert [len(batch) for batch in scoring._read_batches(files)] == [3]
    monkeypatch.setattr(scoring, "BATCH_BYTES", files[0].stat().st_size + 1)
    assert [len(batch) for batch in scoring._read_batches(files)] == [2, 1]


@pytest.mark.parametrize("name", ["=1+1.png", "+1.png", "-1.png", "@a.png"])
def test_a_file_name_is_no_formula_and_still_names_the_file(
    model_folder: Path, given: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (given / "0.png").rename(name)
    assert main(["score", "--model", str(model_folder), "--", name]) == 0
    (row,) = rows(capsys.readouterr().out)
    assert row["path"] == f"./{name}"
    assert Path(row["path"]).is_file()


def test_names_in_any_encoding_are_written_as_utf8_in_any_locale(model_folder: Path, given: Path) -> None:
    (given / "0.png").rename(given / "größe.png")
    os.rename(os.fsencode(given / "1.png"), os.fsencode(given) + b"/caf\xe9.png")  # noqa: PTH104 - a name of bytes
    done = _run("score", "--model", str(model_folder), "tiles", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout.decode("utf-8"))
    assert [row["path"] for row in found] == ["tiles/2.png", r"tiles/caf\xe9.png", "tiles/größe.png"]
    assert not any(row["error"] for row in found)
    assert sorted(path.name for path in given.parent.iterdir()) == ["tiles"], "no store is made to score from a folder"


def test_no_reader_is_no_error(model_folder: Path, given: Path) -> None:
    command = f"{sys.executable} -m oncoshift.cli score --model {model_folder} tiles | head -0; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_what_is_not_there_is_said_before_a_model_is_loaded(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (given.parent / "empty").mkdir()
    for name, words in (("nowhere", "nowhere: no such file or folder"), ("empty", "no image files in empty")):
        assert main(["score", "--model", "no-model", name]) == 2
        assert words in capsys.readouterr().err
    assert main(["score", "--model", "no-model", "tiles"]) == 2
    assert capsys.readouterr().err == "error: no-model: no such folder\n"


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "oncoshift.cli", *arguments]
    return subprocess.run(command, env=_environment() | environment, capture_output=True, check=False)


def _environment() -> dict[str, str]:
    return {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}


def test_out_writes_parquet_with_the_same_figures_and_continues(
    model_folder: Path, given: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "--model", str(model_folder), "tiles"]) == 0
    printed = {row["path"]: float(row["probability"]) for row in rows(capsys.readouterr().out)}
    command = ["score", "--model", str(model_folder), "--out", "scores.parquet", "tiles"]
    assert main(command) == 0
    assert "3 tiles scored now, 3 in all" in capsys.readouterr().out
    (given / "text.png").write_text("no image")
    assert main([*command, "--strict"]) == 1
    told = capsys.readouterr()
    assert "1 tiles scored now, 4 in all" in told.out
    assert "1 of 4 tiles could not be scored" in told.err
    found = pd.read_parquet("scores.parquet").set_index("tile")
    assert {f"tiles/{name}": value for name, value in found["probability"].dropna().items()} == pytest.approx(printed)
    assert str(found.loc["text.png", "error"]).startswith("8 bytes are no image in a known format")
    assert main(["score", "--out", "scores.parquet", "tiles", "more"]) == 2
