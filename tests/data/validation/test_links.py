"""Links are followed within the data set and DVC's cache; others are reported or left out."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from oncoshift.data.ingest import IngestReport, ingest
from oncoshift.settings import IngestSettings


def ingested(root: Path, tmp_path: Path) -> tuple[IngestReport, dict[str, tuple[str, str]]]:
    """Ingest; return the report, and kind and reason by name of the files that were left out."""
    settings = IngestSettings(adapter="folder", max_quarantine_share=1.0, join_near_duplicates=False)
    report = ingest(settings, root, tmp_path / "out", base=tmp_path)
    with (tmp_path / "out" / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        return report, {Path(row["path"]).name: (row["kind"], row["reason"]) for row in csv.DictReader(file)}


def move_and_link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    file.rename(target)
    file.symlink_to(target)


def test_a_link_to_a_file_outside_is_left_out_with_where_it_leads_and_no_copy(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "private" / "x.png"
    move_and_link(tree / "lung" / "benign" / "lung-b0_0.png", outside)
    report, left_out = ingested(tree, tmp_path)
    assert report.kinds == {"outside": 1}
    assert left_out["lung-b0_0.png"][1].startswith(f"a link to {outside}, outside of ingest.root; put the file itself")
    assert not (tmp_path / "out" / "quarantine").exists(), "bytes from elsewhere are not carried into the project"


def test_links_within_the_data_set_are_followed(tree: Path, tmp_path: Path) -> None:
    move_and_link(tree / "lung" / "benign" / "lung-b0_0.png", tree / "store" / ".hidden" / "x.png")
    report, _ = ingested(tree, tmp_path)
    assert (report.tiles, report.quarantined) == (48, 0)


def test_every_file_may_be_a_link_into_dvcs_cache(tree: Path, tmp_path: Path) -> None:
    """`cache.type symlink` makes such links, whether the cache is the project's own or shared."""
    for file in sorted(tree.rglob("*.png")):
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        move_and_link(file, tmp_path / "cache" / "files" / "md5" / digest[:2] / digest[2:])
    report, _ = ingested(tree, tmp_path)
    assert (report.tiles, report.quarantined) == (48, 0)
    assert not [line for line in report.warnings if "links" in line]


def test_a_root_that_is_a_link_is_followed_and_an_organ_that_is_one_is_told_of(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    tree.rename(tmp_path / "elsewhere" / "raw")
    tree.symlink_to(tmp_path / "elsewhere" / "raw")
    assert not [line for line in ingested(tree, tmp_path)[0].warnings if "linked" in line]
    (tree / "lung").rename(tmp_path / "lung")
    (tree / "lung").symlink_to(tmp_path / "lung")
    report, _ = ingested(tree, tmp_path)
    assert report.tiles == 48
    (warning,) = [line for line in report.warnings if "linked" in line]
    assert warning.startswith("16 tiles are outside of ingest.root")
    assert f"{tree}/lung/benign → {tmp_path}/lung/benign" in warning


def test_a_folder_that_is_a_link_to_nowhere_is_told_of(tree: Path, tmp_path: Path) -> None:
    """A disk that is not mounted looks like this, and the number of missing tiles is unknown."""
    (tree / "lung" / "benign").rename(tmp_path / "benign")
    (tree / "lung" / "benign").symlink_to("/nowhere/benign")
    report, _ = ingested(tree, tmp_path)
    assert report.tiles == 40
    assert report.passed_over == {"links that lead nowhere": 1}
    assert "links lead nowhere, for example lung/benign; mount or restore what they led to" in report.warnings


def test_links_that_lead_nowhere_count_as_missing_and_circles_as_unreadable(tree: Path, tmp_path: Path) -> None:
    benign = tree / "lung" / "benign"
    for name in ("lung-b0_0.png", "lung-b0_1.png"):
        (benign / name).unlink()
        (benign / name).symlink_to("/nowhere/x.png")
    (benign / "circle.png").symlink_to("circle.png")
    report, left_out = ingested(tree, tmp_path)
    assert report.tiles == 46
    assert report.kinds == {"missing": 2, "unreadable": 1}
    assert left_out["lung-b0_0.png"] == ("missing", "cannot be read: a link to /nowhere/x.png, where nothing is")
