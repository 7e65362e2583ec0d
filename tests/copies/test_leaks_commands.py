"""`oncoshift groups` and `oncoshift leaks` read folders, CSVs and the stages' own splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.disguises import Disguise, disguised

from oncoshift.cli import main
from oncoshift.copies import Pair
from oncoshift.copies.leaks import SplitTile, count_leaks, find_leaks
from oncoshift.copies.picture import draw_side_by_side
from oncoshift.data.parquet import write_table
from oncoshift.data.split_checks import SIDES
from oncoshift.phantom import render_phantom_tile
from oncoshift.settings import PhantomSettings

if TYPE_CHECKING:
    from pathlib import Path

COPY = Disguise(turn=25, mirror=True, zoom=1.2)


def original(number: int) -> np.ndarray:
    return render_phantom_tile(
        PhantomSettings(tile_size=128), ("lung", "colon", "breast", "kidney")[number % 4], 1, number, 0
    ).image


def save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Splits train, val and test of two tiles each; test/copy.png is a copy of train/0.png."""
    root = tmp_path / "split"
    for number, split in enumerate(("train", "train", "val", "val", "test")):
        save(original(number), root / split / f"{number}.png")
    save(disguised(original(0), COPY), root / "test" / "copy.png")
    return root


def test_groups_are_numbered_by_their_first_path(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "train" / "broken.png").write_bytes(b"no image")
    out = folder.parent / "groups.csv"
    assert main(["groups", str(folder), "--out", str(out), "--params", "/nowhere/params.yaml"]) == 0
    rows = dict(pd.read_csv(out)[["path", "group"]].to_numpy().tolist())
    assert rows == {
        "test/4.png": "g00001",
        "test/copy.png": "g00002",
        "train/0.png": "g00002",
        "train/1.png": "g00003",
        "train/broken.png": "g00004",
        "val/2.png": "g00005",
        "val/3.png": "g00006",
    }
    printed = capsys.readouterr()
    assert "7 images, 1 pair of copies, 6 groups" in printed.out
    assert "broken.png: 8 bytes are no image" in printed.err


def test_an_empty_folder_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["groups", str(tmp_path), "--out", str(tmp_path / "groups.csv")]) == 2
    assert "no image files" in capsys.readouterr().err


def test_leaks_between_folders_are_reported_and_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent / "leaks"
    assert main(["leaks", str(folder), "--out", str(out)]) == 3
    assert "test and train: 1 pair of tiles with the same field" in capsys.readouterr().out
    (row,) = pd.read_csv(out / "leaks.csv").to_dict("records")
    score = row.pop("score")
    assert row == {
        "first_split": "test", "first_path": "test/copy.png", "second_split": "train", "second_path": "train/0.png",
    }  # fmt: skip
    assert 0.7 <= score <= 1
    assert Image.open(out / "leaks.png").size == (1440, 242)


def test_a_clean_split_exits_with_0_and_leaves_no_old_picture(folder: Path) -> None:
    out = folder.parent / "leaks"
    assert main(["leaks", str(folder), "--out", str(out)]) == 3
    (folder / "test" / "copy.png").unlink()
    assert main(["leaks", str(folder), "--out", str(out)]) == 0
    assert len(pd.read_csv(out / "leaks.csv")) == 0
    assert not (out / "leaks.png").exists()


def test_a_csv_names_paths_relative_to_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = pd.DataFrame({"path": ["train/0.png", "test/copy.png", "val/2.png"], "split": ["fold1", "fold2", "fold1"]})
    listed.to_csv(folder / "folds.csv", index=False)
    assert main(["leaks", str(folder / "folds.csv"), "--out", str(folder.parent / "leaks")]) == 3
    assert "fold1 and fold2: 1 pair of tiles" in capsys.readouterr().out


@pytest.mark.parametrize(("second", "code"), [("target_train", 0), ("test", 3)])
def test_the_stages_splits_may_share_originals_inside_training(tmp_path: Path, second: str, code: int) -> None:
    save(original(0), tmp_path / "data" / "raw" / "a.png")
    save(disguised(original(0), COPY), tmp_path / "data" / "raw" / "b.png")
    tiles = pd.DataFrame({"tile_id": ["a", "b"], "path": ["data/raw/a.png", str(tmp_path / "data/raw/b.png")]})
    write_table(tiles, tmp_path / "data" / "tiles" / "tiles.parquet")
    write_table(tiles[["tile_id"]].iloc[:1], tmp_path / "data" / "splits" / "source_train.parquet")
    write_table(tiles[["tile_id"]].iloc[1:], tmp_path / "data" / "splits" / f"{second}.parquet")
    assert main(["leaks", str(tmp_path / "data" / "splits"), "--out", str(tmp_path / "leaks")]) == code


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file or folder"), ("path,fold\na,b\n", "line 1 lacks the columns split; it has path, fold"),
     ("path,split\na.png,train\n", "fewer than two splits"), ("", "line 1 lacks the columns path, split")],
)  # fmt: skip
def test_what_is_no_split_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    path = tmp_path / "split.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert main(["leaks", str(path), "--out", str(tmp_path / "leaks")]) == 2
    assert message in capsys.readouterr().err


def test_one_unreadable_file_leaves_a_split_unchecked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "val" / "broken.png").write_bytes(b"no image")
    assert main(["leaks", str(folder), "--out", str(folder.parent / "leaks")]) == 2
    printed = capsys.readouterr()
    assert "no leaks" not in printed.out
    assert "1 of 7 tiles cannot be read" in printed.err
    assert "broken.png: 8 bytes are no image" in printed.err
    assert not (folder.parent / "leaks").exists()


def test_a_csv_with_wrong_paths_is_no_clean_split(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = pd.DataFrame({"path": [f"images/{number}.png" for number in range(8)], "split": ["a", "b"] * 4})
    listed.to_csv(folder / "folds.csv", index=False)
    assert main(["leaks", str(folder / "folds.csv"), "--out", str(folder.parent / "leaks")]) == 2
    printed = capsys.readouterr()
    assert "no leaks" not in printed.out
    assert "8 of 8 tiles cannot be read" in printed.err
    assert "images/0.png: cannot read the file: No such file or directory" in printed.err
    assert "; and 3 more" in printed.err


def test_groups_of_nothing_readable_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    assert main(["groups", str(tmp_path), "--out", str(tmp_path / "groups.csv")]) == 2
    assert "none of 2 images can be read" in capsys.readouterr().err
    assert not (tmp_path / "groups.csv").exists()


def test_a_giant_group_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(21):
        save(original(0), tmp_path / f"{number}.png")
    assert main(["groups", str(tmp_path), "--out", str(tmp_path / "groups.csv")]) == 0
    assert "warning: group g00001 holds 21 of 21 tiles" in capsys.readouterr().err


def test_tiles_that_are_linked_through_others_leak_too(tmp_path: Path) -> None:
    splits = ("audit", "source_train", "target_train", "target_train", "test")
    tiles = [SplitTile(tmp_path / split, split, split, SIDES[split]) for split in splits]
    pairs = [Pair(0, 1, 0.8), Pair(1, 2, 0.9), Pair(2, 3, 0.7), Pair(2, 4, 0.95)]
    leaks = find_leaks(tiles, pairs)
    assert [(leak.first, leak.second, leak.score) for leak in leaks] == [(2, 4, 0.95), (0, 1, 0.8), (0, 3, None)]
    assert count_leaks(tiles, pairs) == {
        ("audit", "source_train"): 1, ("audit", "target_train"): 2, ("audit", "test"): 1,
        ("source_train", "test"): 1, ("target_train", "test"): 2,
    }  # fmt: skip


def test_rows_grow_with_tiles_and_counts_do_not_need_them(tmp_path: Path) -> None:
    tiles = [SplitTile(tmp_path, str(number), (split := "ab"[number // 1500]), split) for number in range(3000)]
    pairs = [Pair(0, number, 1.0) for number in range(1, 3000)]
    leaks = find_leaks(tiles, pairs)
    assert len(leaks) == 1500 + 1499
    assert {position for leak in leaks for position in (leak.first, leak.second)} == set(range(3000))
    assert count_leaks(tiles, pairs) == {("a", "b"): 1500 * 1500}


def test_the_difference_of_a_copy_is_grey_and_of_strangers_black() -> None:
    first = original(0)
    shown = draw_side_by_side(first, disguised(first, Disguise(turn=15)))[:, 464:].astype(int)
    seen = shown.max(axis=2) > 0
    assert seen.mean() > 0.8
    assert np.abs(shown[seen] - 128).mean() < 25
    assert not draw_side_by_side(first, original(1))[:, 464:].any()
