"""Training never opens a target label, and splits that leak are refused."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from oncoshift.data.loading import data_fingerprint, load_evaluation_tiles, load_masks, load_training_data
from oncoshift.data.normalize import run_normalize
from oncoshift.data.packs.pack import Pack
from oncoshift.data.parquet import write_table
from oncoshift.data.source.adapters.folder import MARKER
from oncoshift.errors import DataError
from oncoshift.settings import NormalizeSettings

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.layout import Layout

SOURCES = ("colon", "lung")


@pytest.fixture
def layout(split_layout: Layout) -> Layout:
    run_normalize(NormalizeSettings(tile_size=32, variants=("none",)), split_layout)
    return split_layout


@pytest.fixture
def tree(layout: Layout) -> Path:
    return layout.folder / "raw"


def test_training_data_carry_source_labels_and_organs(layout: Layout) -> None:
    data = load_training_data(layout, "none", SOURCES)
    table = pd.read_parquet(layout.splits / "source_train.parquet")
    assert data.source.labels.tolist() == table["label"].tolist()
    assert [data.source.organ_names[number] for number in data.source.organs] == table["organ"].tolist()
    assert data.source.rows.dtype == data.source.labels.dtype == data.source.organs.dtype == np.int64
    assert len(data.target.rows) == 8
    assert not hasattr(data.target, "labels")
    index = Pack.open(layout.packs / "none").index
    target = pd.read_parquet(layout.splits / "target_train.parquet")["tile_id"].tolist()
    assert index["tile_id"].iloc[data.target.rows].tolist() == target


def test_training_opens_no_file_with_target_labels(layout: Layout) -> None:
    fingerprint = data_fingerprint(layout, "none")
    shutil.rmtree(layout.tiles)
    for name in ("audit", "test"):
        (layout.splits / f"{name}.parquet").unlink()
    load_training_data(layout, "none", SOURCES)
    assert data_fingerprint(layout, "none") == fingerprint


def test_fingerprint_follows_what_training_reads(layout: Layout) -> None:
    before = data_fingerprint(layout, "none")
    path = layout.splits / "target_train.parquet"
    write_table(pd.read_parquet(path).iloc[1:], path)
    assert data_fingerprint(layout, "none") != before


def test_evaluation_tiles_come_split_after_split(layout: Layout) -> None:
    tiles = load_evaluation_tiles(layout, "none", ("test", "audit"))
    tables = [pd.read_parquet(layout.splits / f"{name}.parquet") for name in ("test", "audit")]
    expected = pd.concat(tables)
    assert tiles.tile_ids.tolist() == expected["tile_id"].tolist()
    assert tiles.labels.tolist() == expected["label"].tolist()
    assert tiles.groups.tolist() == expected["group"].tolist()
    assert set(tiles.organs) == {"kidney"}
    assert tiles.images[tiles.rows].shape == (8, 32, 32, 3)


@pytest.mark.parametrize("name", ["source_val", "audit"])
def test_leaking_splits_are_refused_at_load(layout: Layout, name: str) -> None:
    train = pd.read_parquet(layout.splits / "source_train.parquet")
    path = layout.splits / f"{name}.parquet"
    write_table(pd.concat([pd.read_parquet(path), train.iloc[:1]]), path)
    with pytest.raises(DataError, match="the splits leak"):
        load_evaluation_tiles(layout, "none", (name,))  # type: ignore[arg-type]
    if name == "source_val":
        with pytest.raises(DataError, match="the splits leak"):
            load_training_data(layout, "none", SOURCES)


def test_stages_out_of_step_are_refused(layout: Layout) -> None:
    with pytest.raises(DataError, match="made for the sources colon, lung, not lung"):
        load_training_data(layout, "none", ("lung",))
    with pytest.raises(DataError, match="run `oncoshift normalize`"):
        load_training_data(layout, "reinhard", SOURCES)
    (layout.splits / "source_train.parquet").unlink()
    with pytest.raises(DataError, match="run `oncoshift split`"):
        load_training_data(layout, "none", SOURCES)


def test_masks_come_in_the_order_asked_and_at_the_packs_size(layout: Layout, tree: Path) -> None:
    tile_ids = load_evaluation_tiles(layout, "none", ("audit",)).tile_ids.tolist()[::-1]
    assert load_masks(layout, tile_ids, 16) is None
    (tree / MARKER).touch()
    for number, tile_id in enumerate(tile_ids):
        mask = np.zeros((32, 32), np.uint8)
        mask[: 8 * (number + 1)] = 255
        path = tree / "masks" / tile_id
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    masks = load_masks(layout, tile_ids, 16)
    assert masks is not None
    assert masks.dtype == bool
    assert masks.mean(axis=(1, 2)).tolist() == [min(0.25 * (n + 1), 1.0) for n in range(len(tile_ids))]
    (tree / "masks" / tile_ids[0]).unlink()
    with pytest.raises(DataError, match="no such mask"):
        load_masks(layout, tile_ids, 16)
    with pytest.raises(DataError, match="no such tile"):
        load_masks(layout, ["x"], 16)
