"""Stage normalize: packs hold what serving would see, byte for byte, and say how they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from oncoshift.data.ingest import ingest
from oncoshift.data.normalize import run_normalize
from oncoshift.data.packs import Pack, pack_digest
from oncoshift.data.split import run_split
from oncoshift.errors import DataError
from oncoshift.layout import Layout
from oncoshift.serving.preprocess import apply_reinhard, decode, resize
from oncoshift.settings import Ingest, Normalize, Split

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Normalize(tile_size=32)


@pytest.fixture
def layout(tree: Path, tmp_path: Path) -> Layout:
    Image.new("RGB", (40, 40), "white").save(tree / "lung" / "benign" / "lung-b0_9.png")
    layout = Layout(tmp_path)
    ingest(Ingest(adapter="folder"), tree, layout.tiles, base=layout.folder)
    run_split(Split(), "kidney", ("lung", "colon"), layout)
    return layout


def test_packs_hold_what_serving_would_see(layout: Layout) -> None:
    packs = run_normalize(SETTINGS, layout)
    tiles = pd.read_parquet(layout.tiles / "tiles.parquet")
    plain, stained = packs["none"], packs["reinhard"]
    assert plain.images.shape == (49, 32, 32, 3)
    assert plain.side == 32
    assert stained.stain.reference is not None
    for tile_id, path in zip(tiles["tile_id"], tiles["path"], strict=True):
        image = resize(decode((layout.folder / path).read_bytes()), 32)
        (row,) = plain.rows([tile_id])
        np.testing.assert_array_equal(plain.images[row], image)
        np.testing.assert_array_equal(stained.images[row], apply_reinhard(image, stained.stain.reference))


def test_outcomes_and_reference_are_recorded(layout: Layout) -> None:
    packs = run_normalize(SETTINGS, layout)
    assert packs["none"].stain.outcomes == {"untouched": 49}
    assert packs["none"].stain.reference is None
    assert packs["reinhard"].stain.outcomes == {"blank": 1, "normalised": 48}
    blank = packs["reinhard"].index.query("outcome == 'blank'")["tile_id"].tolist()
    assert blank == ["lung/benign/lung-b0_9.png"]
    source_train = pd.read_parquet(layout.splits / "source_train.parquet")["tile_id"]
    assert packs["reinhard"].stain.reference_tile in set(source_train)


def test_a_reopened_pack_is_the_same(layout: Layout) -> None:
    packs = run_normalize(SETTINGS, layout)
    again = Pack.open(layout.packs / "reinhard")
    assert again.stain == packs["reinhard"].stain
    assert again.images.flags.writeable is False
    with pytest.raises(DataError, match=r"not in pack 'reinhard', for example lung/x\.png"):
        again.rows(["lung/x.png"])


def test_same_input_same_bytes_and_stale_packs_go(layout: Layout) -> None:
    run_normalize(SETTINGS, layout)
    first = {variant: pack_digest(layout.packs / variant) for variant in SETTINGS.variants}
    run_normalize(SETTINGS, layout)
    assert first == {variant: pack_digest(layout.packs / variant) for variant in SETTINGS.variants}
    run_normalize(Normalize(tile_size=32, variants=("reinhard",)), layout)
    assert [path.name for path in layout.packs.iterdir()] == ["reinhard"]
    assert pack_digest(layout.packs / "reinhard") == first["reinhard"]


def test_only_source_train_is_read_of_the_splits(layout: Layout) -> None:
    for path in layout.splits.iterdir():
        if path.stem != "source_train":
            path.unlink()
    assert set(run_normalize(SETTINGS, layout)) == {"none", "reinhard"}


def test_a_file_changed_since_ingest_leaves_the_old_pack_alone(layout: Layout, tree: Path) -> None:
    run_normalize(SETTINGS, layout)
    before = pack_digest(layout.packs / "none")
    Image.new("RGB", (40, 40), "pink").save(tree / "lung" / "benign" / "lung-b0_9.png")
    with pytest.raises(DataError, match=r"lung-b0_9\.png: changed since ingest; run `dvc repro`"):
        run_normalize(SETTINGS, layout)
    assert pack_digest(layout.packs / "none") == before
    (tree / "lung" / "benign" / "lung-b0_9.png").unlink()
    with pytest.raises(DataError, match="it was there at ingest"):
        run_normalize(SETTINGS, layout)


def test_progress_counts_over_all_variants(layout: Layout) -> None:
    seen: list[tuple[int, int]] = []
    run_normalize(SETTINGS, layout, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 98) for done in range(1, 99)]
