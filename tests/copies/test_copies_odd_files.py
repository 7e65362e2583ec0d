"""`oncoshift groups` and `oncoshift leaks` cope with unreadable files and unprintable names."""

from __future__ import annotations

import csv
import os
import unicodedata
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(tissue(seed)).save(path, "PNG")


def put_oddities(folder: Path) -> int:
    """Create six files that look like images by name and cannot be read; return their number."""
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to("/nowhere/x.png")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "phone.heic").write_bytes(b"x")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(3 * 2**30)
    return 6


def put_passed_over(folder: Path) -> None:
    for name in ("notes.txt", "more.zip", "Thumbs.db", ".hidden.png"):
        (folder / name).write_bytes(b"x")
    (folder / "@eaDir").mkdir()
    save(folder / "@eaDir" / "thumb.png", 9)
    (folder / "circle").symlink_to(folder)


def test_groups_tells_of_each_file_that_it_cannot_read_or_passes_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "tiles", tmp_path / "groups.csv"
    save(folder / "a.png", 1)
    odd = put_oddities(folder)
    put_passed_over(folder)
    (folder / "TCGA-A1.svs").mkdir()
    save(folder / "TCGA-A1.svs" / "b.png", 2)
    assert main(["groups", str(folder), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert f"{2 + odd} images, 0 pairs of copies, {2 + odd} groups" in printed.out
    for reason in (
        "pipe.png: not a regular file", "dangling.png: cannot read the file: No such file",
        "zero.png: not a regular file", "circle.png: cannot read the file: Too many levels",
        "huge.png: 3221225472 bytes are more than", "phone.heic: 1 bytes are no image",
        "passed over, not images: 1 .txt, 1 .zip",
        "archives in the data set were not unpacked: 1, for example more.zip",
    ):  # fmt: skip
        assert reason in printed.err


def test_leaks_of_folders_with_them_say_that_nothing_was_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "split" / "train" / "a.png", 1)
    save(tmp_path / "split" / "test" / "b.png", 2)
    odd = put_oddities(tmp_path / "split" / "train")
    put_passed_over(tmp_path / "split" / "test")
    assert main(["leaks", str(tmp_path / "split"), "--out", str(tmp_path / "leaks")]) == 2
    error = capsys.readouterr().err
    assert f"{odd} of {2 + odd} tiles cannot be read, so the split was not checked" in error
    assert "passed over, not images: 1 .txt, 1 .zip" in error


def test_a_split_that_is_not_there_is_no_all_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, split in enumerate(("train", "val")):
        save(tmp_path / "split" / split / "a.png", number)
    (tmp_path / "split" / "val" / "more").symlink_to("/nowhere/more")
    command = ["leaks", str(tmp_path / "split"), "--out", str(tmp_path / "leaks")]
    assert main(command) == 0
    assert "links lead nowhere, for example val/more; mount or restore" in capsys.readouterr().err
    (tmp_path / "split" / "test").symlink_to("/nowhere/test")
    assert main(command) == 2
    printed = capsys.readouterr()
    assert "split/test: a link to /nowhere/test, where nothing is" in printed.err
    assert "no leaks" not in printed.out


def test_names_are_no_formulas_and_those_that_are_not_utf8_stand_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "split", tmp_path / "out"
    odd = os.fsdecode(b"caf\xe9.png")
    for split, name in (("train", odd), ("=train", "x.png")):
        save(folder / split / name, 1)
    save(folder / "=1+1.png", 3)
    assert main(["groups", str(folder), "--out", str(out / "groups.csv")]) == 0
    assert r"train/caf\xe9.png: its name is not UTF-8" in capsys.readouterr().err
    with (out / "groups.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [
            "./=1+1.png", "./=train/x.png", r"train/caf\xe9.png",
        ]  # fmt: skip
    assert (folder / "./=1+1.png").is_file()
    assert main(["leaks", str(folder), "--out", str(out)]) == 3
    with (out / "leaks.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["first_split"] == "'=train"
    assert row["first_path"] == "./=train/x.png"
    assert row["second_path"] == r"train/caf\xe9.png"


def test_a_csv_names_files_in_either_form_of_unicode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    save(tmp_path / f"{decomposed}.png", 1)
    save(tmp_path / "b.png", 2)
    rows = [f"{composed}.png,{composed}", f"b.png,{decomposed}"]
    (tmp_path / "folds.csv").write_text("\n".join(["path,split", *rows, "b.png,test"]), encoding="utf-8")
    assert main(["leaks", str(tmp_path / "folds.csv"), "--out", str(tmp_path / "leaks")]) == 3
    assert f"{composed} and test: 1 pair of tiles" in capsys.readouterr().out, "both forms name one split"


@pytest.mark.parametrize("command", ["groups", "leaks"])
def test_what_cannot_be_written_is_said_before_tiles_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for number, split in enumerate(("train", "test")):
        save(tmp_path / "split" / split / "a.png", number)
    monkeypatch.setattr("oncoshift.copies.find_pairs", lambda *_: pytest.fail("tiles were compared"))
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "out", tmp_path if command == "groups" else tmp_path / "file"):
        assert main([command, str(tmp_path / "split"), "--out", str(out)]) == 2
        assert capsys.readouterr().err.startswith(("error: ", "passed over"))
    monkeypatch.setattr("os.access", lambda *_: False)  # as in a read-only folder
    assert main([command, str(tmp_path / "split"), "--out", str(tmp_path / "new" / "out")]) == 2
    assert "is no folder that you may write to; work elsewhere" in capsys.readouterr().err
