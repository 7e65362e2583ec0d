"""What a person filled in is checked row by row, and merged so that nothing earlier is lost."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.errors import DataError
from oncoshift.files import sha256_file
from oncoshift.labels.answers import Merged, merge_answers
from oncoshift.labels.sheet import Row, read_rows, write_rows, write_sheet
from oncoshift.labels.table import COLUMNS, GATE, TRAIN, read_labels, write_labels

if TYPE_CHECKING:
    from pathlib import Path

NOTHING = pd.DataFrame(columns=list(COLUMNS), dtype=object)
NAMES = ("a_1", "a_2", "b_1", "c_1")


@pytest.fixture
def tiles(tmp_path: Path) -> pd.DataFrame:
    """Four tiles of three groups, with their files."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        Image.fromarray(tissue(number)).save(folder / f"{name}.png")
    return pd.DataFrame(
        [(f"{name}.png", name[0], sha256_file(folder / f"{name}.png")) for name in NAMES],
        columns=["tile_id", "group", "sha256"],
    )


@pytest.fixture
def sheet(tmp_path: Path, tiles: pd.DataFrame) -> Path:
    """A sheet that proposes all four, b of them to gate."""
    columns = (tiles[name].tolist() for name in ("tile_id", "group", "sha256"))
    rows = [
        Row(tile_id, group, "", GATE if group == "b" else TRAIN, "", sha256)
        for tile_id, group, sha256 in zip(*columns, strict=True)
    ]
    write_sheet(tmp_path / "sheet", rows, [tmp_path / "raw" / row.tile_id for row in rows])
    return tmp_path / "sheet" / "labels.csv"


def fill(sheet: Path, *labels: str) -> list[Row]:
    """Write labels into the rows, in their order."""
    rows = [replace(row, label=label) for row, label in zip(read_rows(sheet), labels, strict=True)]
    write_rows(sheet, rows)
    return read_rows(sheet)


def merge(sheet: Path, tiles: pd.DataFrame, before: pd.DataFrame = NOTHING, correct: bool = False) -> Merged:
    return merge_answers(sheet, read_rows(sheet), tiles, before, correct=correct)


def change(sheet: Path, line: int, **cells: str) -> None:
    rows = read_rows(sheet)
    rows[line - 2] = replace(rows[line - 2], **cells)  # type: ignore[arg-type]
    write_rows(sheet, rows)


def test_a_filled_sheet_becomes_labels(sheet: Path, tiles: pd.DataFrame) -> None:
    fill(sheet, "benign", " Malignant ", "skip", "")
    merged = merge(sheet, tiles)
    assert merged.table[["tile_id", "group", "use", "label"]].values.tolist() == [
        ["a_1.png", "a", "train", "benign"],
        ["a_2.png", "a", "train", "malignant"],
        ["b_1.png", "b", "gate", "skip"],
    ]
    assert (merged.new, merged.corrected, merged.unanswered) == (3, 0, 1)


def test_later_labels_join_earlier_ones_and_the_same_again_changes_nothing(sheet: Path, tiles: pd.DataFrame) -> None:
    fill(sheet, "benign", "", "", "")
    first = merge(sheet, tiles).table
    fill(sheet, "", "malignant", "", "benign")
    second = merge(sheet, tiles, first)
    assert dict(zip(second.table["tile_id"], second.table["label"], strict=True)) == {
        "a_1.png": "benign", "a_2.png": "malignant", "c_1.png": "benign"
    }  # fmt: skip
    assert merge(sheet, tiles, second.table).new == 0


def test_an_earlier_label_is_replaced_only_if_that_is_asked(sheet: Path, tiles: pd.DataFrame) -> None:
    fill(sheet, "benign", "", "", "")
    first = merge(sheet, tiles).table
    fill(sheet, "malignant", "", "", "")
    with pytest.raises(DataError, match="line 2: was applied as benign before, and is malignant now; --correct"):
        merge(sheet, tiles, first)
    corrected = merge(sheet, tiles, first, correct=True)
    assert corrected.table["label"].tolist() == ["malignant"]
    assert (corrected.new, corrected.corrected) == (0, 1)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"tile_id": "z.png"}, "line 3: 'z.png' is no tile of the target's training split here"),
        ({"label": "tumour"}, "line 3: label 'tumour' is none of benign, malignant, skip"),
        ({"use": "test"}, "line 3: use 'test' is none of train, gate"),
        ({"group": "b"}, "line 3: group 'b', and the tile's is 'a'"),
        ({"use": "gate"}, "line 3: group 'a' is used to gate, and line 2 uses it to train"),
        ({"sha256": "0" * 64}, "line 3: the tile's file has changed since it was proposed"),
        ({"tile_id": "a_1.png"}, "line 3: 'a_1.png' stands in line 2 already"),
    ],
)
def test_each_mistake_is_told_with_its_line(sheet: Path, tiles: pd.DataFrame, cells: dict[str, str], said: str) -> None:
    fill(sheet, *["benign"] * 4)
    change(sheet, 3, **cells)
    with pytest.raises(DataError) as error:
        merge(sheet, tiles)
    assert said in str(error.value)


def test_a_group_keeps_the_use_of_its_earlier_labels(sheet: Path, tiles: pd.DataFrame) -> None:
    before = pd.DataFrame([("other.png", "a", "gate", "benign", "0")], columns=list(COLUMNS))
    fill(sheet, *["benign"] * 4)
    with pytest.raises(DataError, match="line 2: group 'a' is used to train, and an earlier label uses it to gate"):
        merge(sheet, tiles, before)


def test_a_picture_that_is_not_the_tile_is_refused(sheet: Path, tiles: pd.DataFrame) -> None:
    rows = fill(sheet, *["benign"] * 4)
    (sheet.parent / rows[0].file).write_bytes(b"another")
    (sheet.parent / rows[3].file).unlink()
    with pytest.raises(
        DataError, match=r"line 2: .*1\.png has changed: it is not the tile\n.*line 5: .*4\.png is gone"
    ):
        merge(sheet, tiles)


def test_all_mistakes_come_at_once(sheet: Path, tiles: pd.DataFrame) -> None:
    fill(sheet, "x", "y", "", "z")
    with pytest.raises(DataError) as error:
        merge(sheet, tiles)
    assert [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]] == ["line 2", "line 3", "line 5"]


def test_a_spreadsheet_may_save_it_with_semicolons_and_a_mark_of_the_encoding(sheet: Path, tiles: pd.DataFrame) -> None:
    fill(sheet, "benign", "malignant", "skip", "")
    text = io.StringIO()
    csv.writer(text, delimiter=";", lineterminator="\r\n").writerows(csv.reader(io.StringIO(sheet.read_text())))
    sheet.write_bytes(text.getvalue().encode("utf-8-sig"))
    assert merge(sheet, tiles).new == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"tile_id,label\na,benign\n", "its first line lacks group, file, use, sha256"),
        (b"", "its first line lacks"),
        (b"tile_id,group,file,use,label,sha256,note\n", "column 'note' would be lost when an answer is saved"),
        (b"tile_id,group,file,use,label,sha256\na,b\n", "line 2: 2 cells, and the first line has 6"),
        (b"\xff\xfe\x00", "cannot be read as UTF-8"),
    ],
)
def test_a_file_that_is_no_such_csv_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_rows(tmp_path / "x.csv")


@given(name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_names_come_back_from_the_csv_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / "names.csv"
    write_rows(path, [Row(name, name, "tiles/1.png", "train", "benign", "0")])
    (row,) = read_rows(path)
    assert (row.tile_id, row.group) == (name, name)
    assert path.read_text(encoding="utf-8").splitlines()[1][:1] not in ("=", "+", "-", "@")


def test_the_picture_is_the_tiles_file_and_its_name_says_nothing(sheet: Path, tiles: pd.DataFrame) -> None:
    rows = read_rows(sheet)
    assert [row.file for row in rows] == ["tiles/1.png", "tiles/2.png", "tiles/3.png", "tiles/4.png"]
    assert [sha256_file(sheet.parent / row.file) for row in rows] == tiles["sha256"].tolist()
    with Image.open(sheet.parent / "sheet.png") as contacts:
        assert contacts.size == (4 * 232 + 8, 250 + 8)


def test_a_tile_that_has_changed_since_it_was_read_is_not_proposed(tmp_path: Path, tiles: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"a_1\.png: has changed since stage ingest read it"):
        write_sheet(tmp_path / "new", [Row("a_1.png", "a", "", "train", "", "0")], [tmp_path / "raw" / "a_1.png"])


def test_kept_labels_are_read_back_and_damage_is_told(tmp_path: Path, sheet: Path, tiles: pd.DataFrame) -> None:
    fill(sheet, "benign", "malignant", "skip", "")
    table = merge(sheet, tiles).table
    path = write_labels(tmp_path, "kidney", table)
    pd.testing.assert_frame_equal(read_labels(tmp_path, "kidney"), table)
    path.write_text(path.read_text().replace("train", "gate", 1))
    with pytest.raises(DataError, match="group a trains and gates"):
        read_labels(tmp_path, "kidney")
    path.write_text(path.read_text().replace("benign", "maybe"))
    with pytest.raises(DataError, match="label 'maybe' is none of"):
        read_labels(tmp_path, "kidney")
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path, "kidney")


def test_labels_that_only_dvc_has_are_not_taken_for_none(tmp_path: Path) -> None:
    assert read_labels(tmp_path, "kidney").empty
    (tmp_path / "kidney.csv.dvc").write_text("outs: []\n")
    with pytest.raises(DataError, match="is gone, and DVC has it; run `dvc checkout"):
        read_labels(tmp_path, "kidney")
