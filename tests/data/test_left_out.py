"""Every file is accounted for: unreadable tiles are quarantined, and other files are counted."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from support.tiny_tiles import tissue, write_tree

from oncoshift.cli import main
from oncoshift.data.ingest import ingest
from oncoshift.errors import DataError
from oncoshift.settings import IngestSettings

PLAIN = IngestSettings(adapter="folder", max_quarantine_share=0.5, join_near_duplicates=False)


def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Path:
    """Make a project with 48 tiles, and change into it; return the data set's folder."""
    lines = [f"  {key}: {value}" for key, value in {"adapter": "folder", **settings}.items()]
    (tmp_path / "params.yaml").write_text("target: kidney\nsources: [lung, colon]\ningest:\n" + "\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    return write_tree(tmp_path / "data" / "raw")


def test_every_file_is_a_tile_or_quarantined_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benign = project(tmp_path, monkeypatch, max_quarantine_share=0.5) / "lung" / "benign"
    Image.fromarray(tissue(900)).save(benign / "p1_1.jfif", "JPEG")
    Image.fromarray(tissue(901)).save(benign / "p2_1.gif")
    Image.fromarray(tissue(902)).save(benign / "p3_1.jp2")
    for name in ("slide_1.svs", "scan_1.ndpi", "phone_1.HEIC", "more.zip", "more.tar.gz", "notes.txt", "p9_1"):
        (benign / name).write_bytes(b"x")
    (benign / "p4_1.png").symlink_to("/nowhere/x.png")
    (benign / "p5_1.png").mkdir()
    os.mkfifo(benign / "p6_1.png")
    with (benign / "p7_1.png").open("wb") as file:
        file.truncate(3 * 2**30)
    assert main(["ingest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ingest: 49 tiles, 9 quarantined (1 missing, 8 unreadable): data/tiles"
    told = "1 .gz, 1 .txt, 1 .zip, 1 without a suffix"
    assert lines[1] == f"ingest: passed over, not tiles of adapter folder: {told}"
    (warning,) = [line for line in lines if "archives" in line]
    assert warning.startswith("ingest: ! archives in the data set were not unpacked: 2, for example lung/benign/more.")
    written = json.loads(Path("data/tiles/report.json").read_text())
    assert written["passed_over"] == {".gz": 1, ".txt": 1, ".zip": 1, "without a suffix": 1}
    assert "| .zip | 1 | lung/benign/more.zip |" in Path("data/tiles/report/report.md").read_text()


@pytest.mark.parametrize("suffix", [".gif", ".jp2", ""])
def test_half_of_a_label_that_cannot_be_read_stops_the_stage(tree: Path, tmp_path: Path, suffix: str) -> None:
    for number in range(4):
        file = tree / "lung" / "benign" / f"lung-b{number}_0.png"
        if suffix:
            Image.fromarray(tissue(number)).save(file.with_suffix(suffix))
        file.unlink()
        if not suffix:
            file.symlink_to("/nowhere/x.png")
    kind = "unreadable" if suffix else "missing"
    with pytest.raises(DataError, match=rf"4 of 48 tiles \(8\.3%\) cannot be used.*: 4 {kind}"):
        ingest(IngestSettings(adapter="folder", max_quarantine_share=0.05), tree, tmp_path / "out", base=tmp_path)


def test_names_that_are_not_utf8_are_quarantined_escaped(tree: Path, tmp_path: Path) -> None:
    raw = os.fsencode(tree / "lung" / "benign") + b"/caf\xe9_1.png"
    Path(os.fsdecode(raw)).write_bytes(b"no image")
    (tree / os.fsdecode(b"caf\xe9.t\xe4xt")).touch()
    report = ingest(PLAIN, tree, tmp_path / "out", base=tmp_path)
    assert report.kinds == {"not_utf8": 1}
    assert report.passed_over == {r".t\xe4xt": 1}
    with (tmp_path / "out" / "quarantine.csv").open(newline="", encoding="utf-8") as table:
        (row,) = csv.DictReader(table)
    assert row["path"] == r"raw/lung/benign/caf\xe9_1.png"
    assert row["reason"].startswith("its name is not UTF-8; rename it")
    report_folder = tmp_path / "out" / "report"
    assert r"caf\xe9_1.png" in (report_folder / "report.html").read_text(encoding="utf-8")
    assert r"caf\\xe9_1.png" in (report_folder / "report.md").read_text(encoding="utf-8"), "as Markdown writes it"


def test_groups_that_differ_by_case_or_blanks_are_told_and_kept_apart(tree: Path, tmp_path: Path) -> None:
    for number, group in enumerate(("LUNG-b0", "lung-b0 ", "lung-\u200bb0")):
        Image.fromarray(tissue(900 + number)).save(tree / "lung" / "benign" / f"{group}_9.png")
    report = ingest(PLAIN, tree, tmp_path / "out", base=tmp_path)
    groups = set(pd.read_parquet(tmp_path / "out" / "tiles.parquet")["group"])
    assert {"lung-b0", "LUNG-b0", "lung-b0 ", "lung-\u200bb0"} <= groups
    (warning,) = [line for line in report.warnings if line.startswith("groups that differ only by case or blanks")]
    assert r"'LUNG-b0' and 'lung-b0' and 'lung-b0 ' and 'lung-\u200bb0'" in warning


def test_a_file_name_is_no_html_in_the_report(tree: Path, tmp_path: Path) -> None:
    (tree / "lung" / "benign" / "<img src=x onerror=alert(1)>.png").write_text("no image")
    (tree / "<b>.txt").touch()
    ingest(PLAIN, tree, tmp_path / "out", base=tmp_path)
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / "report" / name).read_text(encoding="utf-8")
        assert "&lt;img src=x onerror" in text
        assert "&lt;b&gt;.txt" in text.replace("&lt;b>", "&lt;b&gt;")
        assert "<img src=x" not in text
        assert "<b>" not in text
