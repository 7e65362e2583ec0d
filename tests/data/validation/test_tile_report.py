"""The report shows counts, reasons and pictures, opens without other files, and is reproducible."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import skimage.data
from PIL import Image

from oncoshift.data.ingest import IngestReport, ingest
from oncoshift.data.validation.document import Block, Heading, Items, Paragraph, Picture, Table, to_html, to_markdown
from oncoshift.data.validation.sheets import MAX_TILES, Thumbnail, draw_sheet
from oncoshift.settings import IngestSettings

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = IngestSettings(adapter="folder", max_quarantine_share=0.2)


@pytest.fixture
def ingested(tree: Path, tmp_path: Path) -> tuple[Path, IngestReport]:
    folder = tree / "lung" / "benign"
    (folder / "text.png").write_text("no image")
    Image.fromarray(skimage.data.chelsea()).save(folder / "cat.png")
    (folder / "lung-b9_0.png").write_bytes((folder / "lung-b0_0.png").read_bytes())
    report = ingest(SETTINGS, tree, tmp_path / "out", base=tmp_path)
    return tmp_path / "out", report


def test_one_sheet_an_organ_and_label(ingested: tuple[Path, IngestReport]) -> None:
    out, _ = ingested
    sheets = {path.name for path in (out / "report").glob("sheet-*.png")}
    expected = {f"sheet-{o}-{la}.png" for o in ("lung", "colon", "kidney") for la in ("benign", "malignant")}
    assert sheets == expected | {"sheet-quarantine.png"}
    with Image.open(out / "report" / "sheet-lung-benign.png") as sheet:
        assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 1000


def test_the_words_name_counts_reasons_and_joined_groups(ingested: tuple[Path, IngestReport]) -> None:
    text = (ingested[0] / "report" / "report.md").read_text()
    assert "51 tiles: 48 sound, 2 quarantined (3.9%; 20.0% allowed), 1 byte-identical copies dropped." in text
    assert "| lung/benign/cat.png | not_he | colours of something else: 0% has a hue of H&E" in text
    assert "lung-b0, lung-b9 → lung-b0" in text
    assert re.search(r"\| lung \| benign \| 8 \| 4 \| 1 \| 1 \| 1 \|", text)
    for name in re.findall(r"\]\((.+?\.png)\)", text):
        assert (ingested[0] / "report" / name).is_file()


def test_the_figure_of_colour_says_what_it_is_not_for(ingested: tuple[Path, IngestReport]) -> None:
    stains = (ingested[0] / "report" / "report.md").read_text().split("## Stains")[1].split("##")[0]
    assert "AUROC of colour alone" in stains
    assert "choose no setting by a target's value" in stains


def test_the_page_needs_no_other_file(ingested: tuple[Path, IngestReport]) -> None:
    page = (ingested[0] / "report" / "report.html").read_text()
    sources = re.findall(r'src="(.{22})', page)
    assert len(sources) == 8
    assert set(sources) == {"data:image/jpeg;base64"}
    assert "H&amp;E" in page
    assert len(page) < 3_000_000


def test_a_page_of_many_full_sheets_stays_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (520, 886, 3), np.uint8)
    sheet = Image.fromarray(noise).resize((443, 260)).resize((886, 520))
    assert len(to_html([Picture(f"{n}.png", "x", sheet) for n in range(9)])) < 3_000_000


def test_figures_for_machines_agree(ingested: tuple[Path, IngestReport]) -> None:
    out, report = ingested
    written = json.loads((out / "report.json").read_text())
    assert written["kinds"] == report.kinds == {"duplicate": 1, "not_he": 1, "unreadable": 1}
    assert (written["tiles"], written["quarantined"], written["duplicates"]) == (48, 2, 1)
    assert written["joined_groups"] == 1


def test_the_same_data_give_the_same_report(tree: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ingest(SETTINGS, tree, tmp_path / name, base=tmp_path)
    files = sorted(path.name for path in (tmp_path / "one" / "report").iterdir())
    assert len(files) == 9
    for name in files:
        assert (tmp_path / "one" / "report" / name).read_bytes() == (tmp_path / "two" / "report" / name).read_bytes()


def test_a_sheet_shows_the_first_tiles_by_content(tmp_path: Path) -> None:
    for number in range(40):
        Image.new("RGB", (16, 16), (number * 6, 0, 0)).save(tmp_path / f"{number}.png")
    tiles = [Thumbnail(tmp_path / f"{number}.png", f"{number:02}", "g") for number in range(40)]
    colours = {tuple(c) for c in np.asarray(draw_sheet("t", tiles)).reshape(-1, 3).tolist()}
    assert all((number * 6, 0, 0) in colours for number in range(MAX_TILES))
    assert (MAX_TILES * 6, 0, 0) not in colours
    assert draw_sheet("t", tiles).tobytes() == draw_sheet("t", tiles[::-1]).tobytes()


def test_a_file_that_is_gone_is_a_crossed_box(tmp_path: Path) -> None:
    sheet = np.asarray(draw_sheet("", [Thumbnail(tmp_path / "gone.png", "0", "")]))
    assert (sheet == 110).all(axis=-1).sum() > 200


def test_html_is_escaped_in_both_and_markdown_tables_hold() -> None:
    blocks: list[Block] = [Heading("a <b>", 1), Paragraph("x & y"), Items(("<i>",)), Table(("h",), (("1 | <2>",),))]
    page = to_html(blocks)
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<title>a &lt;b&gt;</title>" in page
    assert r"| 1 \| &lt;2> |" in to_markdown(blocks)


def test_names_are_shown_as_they_are_and_do_nothing() -> None:
    """Names are untrusted: in Markdown, too, they may not become HTML, a link or a new row."""
    name = "<img src=x onerror=alert(1)>[a](javascript:b)`c`\n| d | \x1b[31m\u202ee.png"
    blocks: list[Block] = [Heading(name), Paragraph(name), Items((name,)), Table(("tile",), ((name,),))]
    blocks.append(Picture("sheet.png", name, Image.new("RGB", (4, 4))))
    text, page = to_markdown(blocks), to_html(blocks)
    assert "<img" not in text
    assert r"[a\](javascript:b)\`c\`" in text
    assert text.splitlines()[-3].startswith("| &lt;img"), "one row"
    assert "onerror=alert(1)&gt;" in page
    for control in ("\x1b", "\u202e"):
        assert control not in text
        assert control not in page
    assert r"\u202ee.png" in page
