"""Stage ingest keeps sound tiles, explains the others, and is reproducible to the byte."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import skimage.data
from PIL import Image, ImageFilter
from support.tiny_tiles import tissue

from oncoshift.data.ingest import ingest
from oncoshift.data.tables import TILE_COLUMNS
from oncoshift.errors import DataError
from oncoshift.parallel import ignore_progress
from oncoshift.phantom import render_phantom_tile
from oncoshift.settings import IngestSettings, PhantomSettings

if TYPE_CHECKING:
    from oncoshift.parallel import Progress

FOLDER = IngestSettings(adapter="folder", max_quarantine_share=0.2)


class Steps:
    """A recorder of the progress of each phase."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[int, int]]] = {}

    def __call__(self, phase: str) -> Progress:
        return lambda done, total: self.seen.setdefault(phase, []).append((done, total))


def reasons(out: Path) -> dict[str, str]:
    with (out / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_sound_tiles_are_listed_with_their_facts(tree: Path, tmp_path: Path) -> None:
    report = ingest(FOLDER, tree, tmp_path / "out", base=tmp_path)
    tiles = pd.read_parquet(tmp_path / "out" / "tiles.parquet")
    assert tuple(tiles.columns) == TILE_COLUMNS
    assert len(tiles) == report.tiles == 48
    assert tiles["tile_id"].is_monotonic_increasing
    first = tiles.iloc[0]
    assert first["path"] == f"raw/{first['tile_id']}"
    assert (first["width"], first["height"]) == (32, 32)
    assert first["sha256"] == hashlib.sha256((tmp_path / first["path"]).read_bytes()).hexdigest()
    assert report.organs["lung"] == {"benign": {"tiles": 8, "groups": 4}, "malignant": {"tiles": 8, "groups": 4}}
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["organs"] == report.organs
    assert written["made_up"] is False


def test_paths_outside_the_experiment_are_absolute(tree: Path, tmp_path: Path) -> None:
    ingest(FOLDER, tree, tmp_path / "out", base=tmp_path / "elsewhere")
    assert Path(pd.read_parquet(tmp_path / "out" / "tiles.parquet")["path"][0]).is_absolute()


def test_a_phantom_is_reported_as_made_up(tree: Path, tmp_path: Path) -> None:
    (tree / "PHANTOM.txt").write_text("made up")
    assert ingest(IngestSettings(adapter="phantom"), tree, tmp_path / "out", base=tmp_path).made_up


def test_bad_tiles_are_quarantined_with_a_reason_and_stop_nothing(tree: Path, tmp_path: Path) -> None:
    folder = tree / "lung" / "benign"
    good = (folder / "lung-b0_0.png").read_bytes()
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").touch()
    Image.new("RGB", (31, 64), "pink").save(folder / "small.png")
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(folder / "deep.tif")
    report = ingest(FOLDER, tree, tmp_path / "out", base=tmp_path)
    assert (report.tiles, report.quarantined) == (48, 5)
    found = reasons(tmp_path / "out")
    assert set(found) == {"cut.png", "text.png", "empty.png", "small.png", "deep.tif"}
    assert "31×64 pixels" in found["small.png"]
    assert "floating point" in found["deep.tif"]
    assert "no image in a known format" in found["text.png"]


def test_a_manifest_is_held_to_its_promises(tree: Path, tmp_path: Path) -> None:
    good, changed = sorted((tree / "lung" / "benign").iterdir())[:2]
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    rows = [
        f"lung/benign/{good.name},lung,benign,g1,{digest}",
        f"lung/benign/{good.name},lung,benign,g1,{digest}",
        f"lung/benign/{changed.name},lung,benign,g1,{digest}",
        "lung/benign/absent.png,lung,benign,g1,",
    ]
    (tree / "tiles.csv").write_text("path,organ,label,group,sha256\n" + "\n".join(rows) + "\n")
    settings = IngestSettings(adapter="manifest", max_quarantine_share=1.0)
    report = ingest(settings, tree, tmp_path / "out", base=tmp_path)
    assert (report.tiles, report.quarantined) == (1, 3)
    found = reasons(tmp_path / "out")
    assert found[good.name].startswith("named twice")
    assert "not what the manifest promises" in found[changed.name]
    assert found["absent.png"] == "cannot be read: No such file or directory"


def test_the_quarantine_keeps_the_bytes_and_forgets_earlier_ones(tree: Path, tmp_path: Path) -> None:
    folder, out = tree / "lung" / "benign", tmp_path / "out"
    (folder / "text.png").write_text("no image")
    ingest(FOLDER, tree, out, base=tmp_path)
    assert contents(out / "quarantine") == {"lung/benign/text.png": b"no image"}
    (folder / "text.png").unlink()
    (folder / "other.png").write_text("none either")
    ingest(FOLDER, tree, out, base=tmp_path)
    assert contents(out / "quarantine") == {"lung/benign/other.png": b"none either"}
    (folder / "other.png").unlink()
    ingest(FOLDER, tree, out, base=tmp_path)
    assert not (out / "quarantine").exists()
    assert sorted(path.name for path in out.iterdir()) == [
        "measurements.parquet",
        "near_duplicates.parquet",
        "quarantine.csv",
        "report",
        "report.json",
        "tiles.parquet",
    ]


def test_each_kind_of_bad_tile_is_counted(tree: Path, tmp_path: Path) -> None:
    folder = tree / "colon" / "benign"
    Image.new("RGB", (64, 64), (246, 244, 247)).save(folder / "glass.png")
    Image.fromarray(skimage.data.chelsea()).save(folder / "cat.png")
    Image.fromarray(skimage.data.camera()).save(folder / "ct.png")
    sharp = Image.fromarray(tissue(1, 16)).resize((256, 256), Image.Resampling.NEAREST)
    sharp.filter(ImageFilter.GaussianBlur(6)).save(folder / "soft.png")
    report = ingest(FOLDER, tree, tmp_path / "out", base=tmp_path)
    assert report.kinds == {"blank": 1, "blurred": 1, "not_he": 2}
    measured = pd.read_parquet(tmp_path / "out" / "measurements.parquet").set_index("tile_id")
    assert len(measured) == 52
    assert measured.loc["colon/benign/cat.png", "kind"] == "not_he"
    assert measured.loc["colon/benign/cat.png", ["width", "height"]].tolist() == [451, 300]


def test_copies_are_dropped_and_do_not_count_as_bad(tree: Path, tmp_path: Path) -> None:
    folder = tree / "lung" / "benign"
    for number in range(3):
        (folder / f"lung-b{number}_9.png").write_bytes((folder / "lung-b0_0.png").read_bytes())
    report = ingest(IngestSettings(adapter="folder", max_quarantine_share=0.0), tree, tmp_path / "out", base=tmp_path)
    assert (report.tiles, report.quarantined, report.duplicates) == (48, 0, 3)
    tiles = pd.read_parquet(tmp_path / "out" / "tiles.parquet")
    assert set(tiles.loc[tiles["organ"] == "lung", "group"]) & {"lung-b0", "lung-b1", "lung-b2"} == {"lung-b0"}
    assert not (tmp_path / "out" / "quarantine").exists()


def test_the_same_tile_with_two_labels_stops_the_stage(tree: Path, tmp_path: Path) -> None:
    (tree / "lung" / "malignant" / "x.png").write_bytes((tree / "lung" / "benign" / "lung-b0_0.png").read_bytes())
    with pytest.raises(DataError, match=r"lung-b0_0\.png \(lung, benign\) = lung/malignant/x\.png"):
        ingest(FOLDER, tree, tmp_path / "out", base=tmp_path)


def test_without_a_usable_tile_the_stage_says_so(tree: Path, tmp_path: Path) -> None:
    for path in tree.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"48 of 48 tiles \(100\.0%\)(.|\n)*48 unreadable"):
        ingest(FOLDER, tree, tmp_path / "out", base=tmp_path)


def test_too_large_a_bad_share_stops_with_the_numbers_and_the_report(tree: Path, tmp_path: Path) -> None:
    (tree / "lung" / "benign" / "lung-b0_0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 48 tiles \(2\.1%\)(.|\n)*quarantine\.csv") as caught:
        ingest(IngestSettings(adapter="folder", max_quarantine_share=0.02), tree, tmp_path / "out", base=tmp_path)
    assert "max_quarantine_share" in str(caught.value)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["quarantined"] == 1


def test_same_data_same_bytes(tree: Path, tmp_path: Path) -> None:
    (tree / "lung" / "benign" / "text.png").write_text("no image")
    for name in ("one", "two"):
        ingest(FOLDER, tree, tmp_path / name, base=tmp_path)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_each_phase_counts_the_tiles_that_there_are(tree: Path, tmp_path: Path) -> None:
    steps = Steps()
    ingest(FOLDER, tree, tmp_path / "out", base=tmp_path, phases=steps)
    assert steps.seen["checking"] == steps.seen["describing"] == [(done, 48) for done in range(1, 49)]
    assert steps.seen["comparing"][-1] == (48, 48), "of 48 tiles there are no 96"
    assert set(steps.seen) == {"checking", "describing", "comparing"}, "nothing was unpacked"


def test_a_file_that_goes_or_changes_while_ingest_runs_is_named_and_stops_nothing(tree: Path, tmp_path: Path) -> None:
    benign = tree / "lung" / "benign"

    def meddle(phase: str) -> Progress:
        if phase == "describing":  # every tile has been checked
            (benign / "lung-b0_0.png").unlink()
            (benign / "lung-b1_0.png").write_bytes((benign / "lung-b2_0.png").read_bytes())
            (benign / "lung-b3_0.png").write_text("no image")
        return ignore_progress(phase)

    report = ingest(FOLDER, tree, tmp_path / "out", base=tmp_path, phases=meddle)
    (warning,) = [line for line in report.warnings if line.startswith("files changed or disappeared")]
    assert warning.endswith("run it again: " + ", ".join(f"lung/benign/lung-b{number}_0.png" for number in (0, 1, 3)))
    assert (report.tiles, report.joined_groups) == (48, 0)

    again = ingest(FOLDER, tree, tmp_path / "again", base=tmp_path)
    assert not [line for line in again.warnings if line.startswith("files changed or disappeared")]
    assert (again.tiles, again.quarantined, again.joined_groups) == (45, 1, 1)


def test_organs_names_are_refused_before_a_tile_is_opened(tree: Path, tmp_path: Path) -> None:
    (tree / "kidney").rename(tree / "Kidney Left")
    steps = Steps()
    with pytest.raises(DataError, match=r"'kidney left': 16 tiles(.|\n)*rename the folder, for example to kidney_left"):
        ingest(FOLDER, tree, tmp_path / "out", base=tmp_path, phases=steps)
    assert not steps.seen


def disguised(tile: np.ndarray) -> Image.Image:
    """Make a rotated, mirrored, cropped and re-encoded copy."""
    return Image.fromarray(np.rot90(tile)[:, ::-1]).rotate(12, Image.Resampling.BICUBIC).crop((16, 16, 176, 176))


def test_tiles_of_one_original_become_one_group(tmp_path: Path) -> None:
    for label in ("benign", "malignant"):
        (tmp_path / "raw/lung" / label).mkdir(parents=True)
    settings = PhantomSettings(tile_size=192)
    for number in range(4):
        tile = render_phantom_tile(settings, "lung", 0, 0, number).image
        Image.fromarray(tile).save(tmp_path / f"raw/lung/benign/p{number}_0.png")
    original = render_phantom_tile(settings, "lung", 0, 0, 2).image
    disguised(original).save(tmp_path / "raw/lung/benign/p9_0.jpg", quality=80)
    disguised(render_phantom_tile(settings, "lung", 0, 0, 3).image).save(tmp_path / "raw/lung/malignant/q_0.png")

    report = ingest(FOLDER, tmp_path / "raw", tmp_path / "out", base=tmp_path)
    table = pd.read_parquet(tmp_path / "out/tiles.parquet").set_index("tile_id")["group"]
    assert table.tolist() == ["p0", "p1", "p2", "p3", "p2", "p3"]
    assert report.joined_groups == 2
    pairs = pd.read_parquet(tmp_path / "out/near_duplicates.parquet")
    assert pairs["second"].tolist() == ["lung/benign/p9_0.jpg", "lung/malignant/q_0.png"]
    (warning,) = [line for line in report.warnings if line.startswith("one original")]
    assert "lung/benign/p3_0.png and lung/malignant/q_0.png" in warning
    assert "p9_0.jpg" not in warning

    apart = FOLDER.model_copy(update={"join_near_duplicates": False})
    ingest(apart, tmp_path / "raw", tmp_path / "apart", base=tmp_path)
    assert pd.read_parquet(tmp_path / "apart/tiles.parquet")["group"].nunique() == 6
