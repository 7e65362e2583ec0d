"""Camelyon17-WILDS is read as published: hospitals are the domains, patients the groups."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.data.ingest import ingest
from oncoshift.data.source.opening import DataSet
from oncoshift.data.source.scan import scan
from oncoshift.data.split import split
from oncoshift.errors import DataError
from oncoshift.settings import IngestSettings, Settings, SplitSettings, replace_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from oncoshift.data.source.adapters.base import RawTile

    Found = Callable[..., list[RawTile]]
    Row = tuple[str, int, int, int, int, int, int]

ADAPTER = "camelyon17_wilds"
HEADER = ",patient,node,x_coord,y_coord,tumor,slide,center,split"
ROWS: list[Row] = [  # patient, node, x, y, tumor, center, split
    ("004", 4, 3328, 21792, 1, 0, 0),
    ("004", 4, 3360, 21792, 0, 0, 1),
    ("020", 2, 32, 64, 0, 1, 0),
    ("042", 3, 640, 960, 1, 2, 1),
]
OFFICIAL = {"target": "hospital-2", "sources": ["hospital-0", "hospital-3", "hospital-4"]}


def write_metadata(folder: Path, rows: Sequence[Row]) -> None:
    lines = [
        f"{row},{','.join(map(str, cells[:5]))},{row // 2},{cells[5]},{cells[6]}" for row, cells in enumerate(rows)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_text("\n".join([HEADER, *lines]) + "\n")


def name(row: Row) -> str:
    slide = f"patient_{row[0]}_node_{row[1]}"
    return f"patches/{slide}/patch_{slide}_x_{row[2]}_y_{row[3]}.png"


def write_tree(folder: Path, rows: Sequence[Row] = ROWS) -> None:
    """Write metadata and patches of 96 pixels with an alpha channel, as published."""
    write_metadata(folder, rows)
    for seed, row in enumerate(rows):
        path = folder / name(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tissue(seed, 96)).convert("RGBA").save(path)


def test_hospital_label_and_patient(tmp_path: Path, found: Found) -> None:
    write_tree(tmp_path / "raw" / "camelyon17_v1.0")
    tiles = found(ADAPTER, tmp_path / "raw")
    assert [(tile.tile_id, tile.organ, tile.label, tile.group) for tile in tiles] == [
        (f"camelyon17_v1.0/{name(ROWS[0])}", "hospital-0", 1, "patient_004"),
        (f"camelyon17_v1.0/{name(ROWS[1])}", "hospital-0", 0, "patient_004"),
        (f"camelyon17_v1.0/{name(ROWS[2])}", "hospital-1", 0, "patient_020"),
        (f"camelyon17_v1.0/{name(ROWS[3])}", "hospital-2", 1, "patient_042"),
    ]
    assert all(tile.path.is_file() for tile in tiles)
    assert found(ADAPTER, tmp_path / "raw" / "camelyon17_v1.0")[0].tile_id == name(ROWS[0])


def test_an_archive_is_read_and_the_metadata_are_no_file_passed_over(tmp_path: Path, found: Found) -> None:
    write_tree(tmp_path / "raw")
    archive = shutil.make_archive(str(tmp_path / "archive"), "gztar", tmp_path / "raw")
    assert len(found(ADAPTER, tmp_path / archive)) == 4
    scanned = scan(IngestSettings(adapter=ADAPTER), DataSet(tmp_path / "raw", tmp_path / "unpacked"))
    assert scanned.passed_over.counts == {}


def test_unlabelled_patches_beside_it_have_no_label_whatever_their_column_tumor_says(
    tmp_path: Path, found: Found
) -> None:
    write_tree(tmp_path / "raw" / "camelyon17_v1.0")
    write_tree(tmp_path / "raw" / "camelyon17_unlabeled_v1.0", [("042", 0, 96, 32, 0, 2, 10)])
    first = found(ADAPTER, tmp_path / "raw")[0]
    assert (first.organ, first.label, first.group) == ("hospital-2", -1, "patient_042")


def test_zeros_that_a_spreadsheet_took_away_are_put_back(tmp_path: Path, found: Found) -> None:
    write_tree(tmp_path / "raw")
    metadata = tmp_path / "raw" / "metadata.csv"
    metadata.write_text(metadata.read_text().replace(",004,", ",4,"))
    assert found(ADAPTER, tmp_path / "raw")[0].path == tmp_path / "raw" / name(ROWS[0])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("4a", 4, 32, 32, 1, 0, 0), "column patient: '4a' is not a whole number"),
        (("004", 4, -32, 32, 1, 0, 0), "column x_coord: '-32' is not a whole number"),
        (("004", 4, 32, 32, 2, 0, 0), "column tumor: '2' is not allowed; allowed: 0, 1"),
        (("004", 4, 32, 32, 1, 5, 0), "column center: '5' is not allowed; allowed: 0, 1, 2, 3, 4"),
        (("004", 4, 32, 32, 1, 0, 3), "column split: '3' is not allowed; allowed: 0, 1, 10"),
        (("004", 4, 32, 32, 1, 1, 0), "column center: patient_004 is of hospital-1 here and of hospital-0 above"),
    ],
)
def test_a_row_that_cannot_be_is_named_with_its_line(tmp_path: Path, found: Found, row: Row, problem: str) -> None:
    write_tree(tmp_path / "raw")
    write_metadata(tmp_path / "raw", [*ROWS, row])
    with pytest.raises(DataError, match=rf"metadata\.csv: 1 bad rows\nline 6, {problem}$"):
        found(ADAPTER, tmp_path / "raw")


def test_metadata_that_are_absent_empty_or_of_something_else_are_refused(tmp_path: Path, found: Found) -> None:
    raw = tmp_path / "raw"
    write_tree(raw)
    (raw / "metadata.csv").write_text(HEADER.replace(",center,", ",hospital,") + "\n")
    with pytest.raises(DataError, match=r"metadata\.csv: line 1 lacks the columns center; it has ,"):
        found(ADAPTER, raw)
    (raw / "metadata.csv").write_text(HEADER + "\n")
    with pytest.raises(DataError, match=r"metadata\.csv: no rows below the header"):
        found(ADAPTER, raw)
    (raw / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"metadata\.csv: is missing; put the file of that name .* beside patches$"):
        found(ADAPTER, raw)


def test_patches_that_are_missing_go_into_the_quarantine_and_if_all_are_it_is_an_error(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "tiles"
    write_tree(raw)
    (raw / name(ROWS[1])).unlink()
    settings = IngestSettings(adapter=ADAPTER, max_quarantine_share=0.5)
    report = ingest(settings, raw, out, base=tmp_path)
    assert (report.tiles, report.kinds) == (3, {"missing": 1})
    assert name(ROWS[1]) in (out / "quarantine.csv").read_text()
    for row in (ROWS[0], *ROWS[2:]):
        (raw / name(row)).unlink()
    with pytest.raises(DataError, match=r"metadata\.csv: all 4 patches are absent, for example patches/patient_004"):
        ingest(settings, raw, out, base=tmp_path)


def test_the_official_hospitals_are_ingested_and_split_by_patient(tmp_path: Path) -> None:
    rows: list[Row] = [
        (f"{20 * center + number:03}", 1, 32 * x, 64, x % 2, center, x // 3)
        for center in (0, 1, 2, 3, 4)
        for number in range(4)
        for x in range(4)
    ]
    write_tree(tmp_path / "raw" / "camelyon17_v1.0", rows)
    settings = replace_values(Settings(), {**OFFICIAL, "ingest.adapter": ADAPTER})
    report = ingest(settings.ingest, tmp_path / "raw", tmp_path / "tiles", base=tmp_path)
    assert report.organs["hospital-2"] == {
        "benign": {"tiles": 8, "groups": 4},
        "malignant": {"tiles": 8, "groups": 4},
    }
    frames = split(
        SplitSettings(), pd.read_parquet(tmp_path / "tiles" / "tiles.parquet"), settings.target, settings.sources
    )
    assert {name: (set(frame["organ"]), frame["group"].nunique()) for name, frame in frames.items()} == {
        "source_train": ({"hospital-0", "hospital-3", "hospital-4"}, 9),
        "source_val": ({"hospital-0", "hospital-3", "hospital-4"}, 3),
        "target_train": ({"hospital-2"}, 2),
        "audit": ({"hospital-2"}, 1),
        "test": ({"hospital-2"}, 1),
    }
    assert "label" not in frames["target_train"]
