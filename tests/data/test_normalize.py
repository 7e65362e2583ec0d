"""Stage normalize writes packs that match serving byte for byte and record how they were made."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.data import normalize
from oncoshift.data.ingest import ingest
from oncoshift.data.normalize import SHEET, Normalized, run_normalize
from oncoshift.data.packs.pack import Pack, pack_digest
from oncoshift.data.parquet import write_table
from oncoshift.data.split import run_split
from oncoshift.data.stain import compute_tile_statistics
from oncoshift.errors import DataError
from oncoshift.serving.images import read_tile
from oncoshift.serving.stain import normalizer
from oncoshift.settings import IngestSettings, NormalizeSettings, SplitSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.data.stain.reference import Statistics
    from oncoshift.layout import Layout

SETTINGS = NormalizeSettings(tile_size=32)
INGEST = IngestSettings(adapter="folder", join_near_duplicates=False, max_quarantine_share=0.2)


@pytest.fixture
def layout(split_layout: Layout) -> Layout:
    return split_layout


@pytest.fixture
def tree(layout: Layout) -> Path:
    return layout.folder / "raw"


def prepare(layout: Layout, tree: Path) -> None:
    """Run the stages ingest and split."""
    ingest(INGEST, tree, layout.tiles, base=layout.folder)
    run_split(SplitSettings(), "kidney", ("lung", "colon"), layout)


def add_blank(layout: Layout, tree: Path) -> str:
    """Add a white tile behind the back of ingest, which would refuse it."""
    path = tree / "lung" / "benign" / "lung-b0_1.png"
    Image.new("RGB", (40, 40), "white").save(path)
    table = pd.read_parquet(layout.tiles / "tiles.parquet")
    row = table["tile_id"] == "lung/benign/lung-b0_1.png"
    table.loc[row, "sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_table(table, layout.tiles / "tiles.parquet")
    return "lung/benign/lung-b0_1.png"


def digests(packs: dict[str, Normalized]) -> dict[str, str]:
    return {variant: done.pack.content for variant, done in packs.items()}


def test_packs_hold_what_serving_would_see(layout: Layout) -> None:
    packs = run_normalize(NormalizeSettings(tile_size=32, variants=("none", "reinhard", "macenko")), layout)
    tiles = pd.read_parquet(layout.tiles / "tiles.parquet")
    plain = packs["none"].pack
    assert plain.images.shape == (48, 32, 32, 3)
    assert plain.side == 32
    for tile_id, path in zip(tiles["tile_id"], tiles["path"], strict=True):
        image = read_tile((layout.folder / path).read_bytes(), 32)
        (row,) = plain.rows([tile_id])
        np.testing.assert_array_equal(plain.images[row], image)
        for variant in ("reinhard", "macenko"):
            stained = packs[variant].pack
            assert stained.stain.reference is not None
            np.testing.assert_array_equal(stained.images[row], normalizer(stained.stain.reference)(image).image)


def test_outcomes_and_reference_are_recorded(layout: Layout, tree: Path) -> None:
    blank = add_blank(layout, tree)
    packs = run_normalize(SETTINGS, layout)
    assert packs["none"].pack.stain.outcomes == {"untouched": 48}
    assert packs["none"].pack.stain.reference is None
    stained = packs["reinhard"].pack
    assert stained.stain.outcomes == {"blank": 1, "normalised": 47}
    assert stained.index.query("outcome == 'blank'")["tile_id"].tolist() == [blank]
    source_train = pd.read_parquet(layout.splits / "source_train.parquet")["tile_id"]
    assert stained.stain.reference_tile in set(source_train)


def test_a_reopened_pack_is_the_same(layout: Layout) -> None:
    packs = run_normalize(SETTINGS, layout)
    again = Pack.open(layout.packs / "reinhard")
    assert again.stain == packs["reinhard"].pack.stain
    assert again.content == packs["reinhard"].pack.content
    with pytest.raises(DataError, match=r"not in pack 'reinhard', for example lung/x\.png"):
        again.rows(["lung/x.png"])


def test_same_input_same_bytes_and_stale_packs_go(layout: Layout) -> None:
    first = digests(run_normalize(SETTINGS, layout))
    files = {path: path.read_bytes() for path in layout.packs.rglob("*.*")}
    again = run_normalize(SETTINGS, layout)
    assert digests(again) == first
    assert [done.report.made for done in again.values()] == [0, 0]
    assert files == {path: path.read_bytes() for path in layout.packs.rglob("*.*")}
    run_normalize(NormalizeSettings(tile_size=32, variants=("reinhard",)), layout)
    assert [path.name for path in layout.packs.glob("*/")] == ["reinhard"]
    assert pack_digest(layout.packs / "reinhard") == first["reinhard"]


def test_packs_do_not_depend_on_what_was_there_before(layout: Layout, tree: Path) -> None:
    first = run_normalize(SETTINGS, layout)
    for number in range(6):
        Image.fromarray(tissue(900 + number, 32) // 2).save(tree / "lung" / "benign" / f"new{number}_0.png")
    prepare(layout, tree)
    grown = run_normalize(SETTINGS, layout)
    assert grown["none"].report.made == 6
    shutil.rmtree(layout.packs)
    assert digests(run_normalize(SETTINGS, layout)) == digests(grown)
    for number in range(6):
        (tree / "lung" / "benign" / f"new{number}_0.png").unlink()
    prepare(layout, tree)
    assert digests(run_normalize(SETTINGS, layout)) == digests(first)


def test_only_new_tiles_are_measured_for_the_reference(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    run_normalize(SETTINGS, layout)
    measured: list[int] = []

    def count(image: NDArray[np.uint8]) -> Statistics | None:
        measured.append(1)
        return compute_tile_statistics(image)

    monkeypatch.setattr(normalize, "compute_tile_statistics", count)
    first = run_normalize(SETTINGS, layout)["reinhard"].pack.stain
    assert measured == []
    (path,) = layout.packs.glob("statistics-*.parquet")
    write_table(pd.read_parquet(path).iloc[3:], path)
    assert run_normalize(SETTINGS, layout)["reinhard"].pack.stain == first
    assert len(measured) == 3


def test_a_reference_that_left_source_training_is_replaced(layout: Layout) -> None:
    before = run_normalize(SETTINGS, layout)["reinhard"].pack.stain
    path = layout.splits / "source_train.parquet"
    table = pd.read_parquet(path)
    write_table(table[table["tile_id"] != before.reference_tile], path)
    after = run_normalize(SETTINGS, layout)["reinhard"]
    assert after.pack.stain.reference_tile != before.reference_tile
    assert after.report.made == 48


@pytest.mark.parametrize(
    "changes", [{"standardize_luminosity": False}, {"fit": "group"}, {"precision": "exact"}, {"tile_size": 48}]
)
def test_another_setting_makes_the_tiles_again(layout: Layout, changes: dict[str, object]) -> None:
    variants: Any = ("none", "macenko")
    before = run_normalize(NormalizeSettings(tile_size=32, variants=variants), layout)["macenko"]
    after = run_normalize(NormalizeSettings.model_validate({"tile_size": 32, "variants": variants, **changes}), layout)
    assert after["macenko"].report.made == 48
    assert after["macenko"].pack.content != before.pack.content
    assert after["none"].report.made == (48 if "tile_size" in changes else 0)


def test_the_shard_size_alone_makes_nothing_again(layout: Layout) -> None:
    run_normalize(SETTINGS, layout)
    after = run_normalize(NormalizeSettings(tile_size=32, shard_tiles=5, workers=1), layout)
    assert [done.report.made for done in after.values()] == [0, 0]


def test_only_source_train_is_read_of_the_splits(layout: Layout) -> None:
    for path in layout.splits.iterdir():
        if path.stem != "source_train":
            path.unlink()
    assert set(run_normalize(SETTINGS, layout)) == {"none", "reinhard"}


def test_a_file_changed_since_ingest_is_told_where_it_must_be_read(layout: Layout, tree: Path) -> None:
    before = digests(run_normalize(SETTINGS, layout))
    Image.new("RGB", (40, 40), "pink").save(tree / "lung" / "benign" / "lung-b0_1.png")
    assert digests(run_normalize(SETTINGS, layout)) == before, "the pack has what ingest saw"
    larger = NormalizeSettings(tile_size=48)
    with pytest.raises(DataError, match=r"lung-b0_1\.png: changed since ingest; run `dvc repro`"):
        run_normalize(larger, layout)
    assert pack_digest(layout.packs / "none") == before["none"]
    (tree / "lung" / "benign" / "lung-b0_1.png").unlink()
    with pytest.raises(DataError, match="it was there at ingest"):
        run_normalize(larger, layout)


def test_splits_out_of_step_are_refused(layout: Layout) -> None:
    table = pd.read_parquet(layout.tiles / "tiles.parquet")
    source_train = pd.read_parquet(layout.splits / "source_train.parquet")["tile_id"]
    write_table(table[table["tile_id"] != source_train[0]], layout.tiles / "tiles.parquet")
    with pytest.raises(DataError, match="has tiles that are not in"):
        run_normalize(SETTINGS, layout)


def test_progress_counts_the_tiles_of_each_variant(layout: Layout) -> None:
    seen: dict[str, list[tuple[int, int]]] = {variant: [] for variant in SETTINGS.variants}
    run_normalize(SETTINGS, layout, lambda variant: lambda *step: seen[variant].append(step))
    for steps in seen.values():
        assert steps[0] == (0, 48)
        assert steps[-1] == (48, 48)
        assert steps == sorted(steps)


def test_the_sheet_shows_every_variant_and_goes_with_them(layout: Layout) -> None:
    run_normalize(SETTINGS, layout)
    with Image.open(layout.packs / SHEET) as sheet:
        assert sheet.height > 2 * sheet.width, "two columns, two tiles of each of three organs"
        assert np.asarray(sheet.convert("RGB")).std() > 20
    before = (layout.packs / SHEET).stat().st_mtime_ns
    run_normalize(SETTINGS, layout)
    assert (layout.packs / SHEET).stat().st_mtime_ns == before
    run_normalize(NormalizeSettings(tile_size=32, variants=("none", "reinhard", "macenko")), layout)
    wide = Image.open(layout.packs / SHEET).width
    run_normalize(SETTINGS, layout)
    assert Image.open(layout.packs / SHEET).width < wide, "it shows the variants that there are"
    run_normalize(NormalizeSettings(tile_size=32, variants=("none",)), layout)
    assert not (layout.packs / SHEET).exists()


@pytest.mark.parametrize("name", ["pack.json", "statistics-*.parquet"])
def test_damaged_small_files_are_made_again(layout: Layout, name: str) -> None:
    before = digests(run_normalize(SETTINGS, layout))
    for path in layout.packs.rglob(name):
        path.write_bytes(path.read_bytes()[:20])
    assert digests(run_normalize(SETTINGS, layout)) == before
