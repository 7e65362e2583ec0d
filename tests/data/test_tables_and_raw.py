"""Damaged or replaced files between stages are reported with the command that remakes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from oncoshift.data.packs.tiles import FileReader, TileSource
from oncoshift.data.parquet import read_table, write_table
from oncoshift.data.raw import read_raw_tiles
from oncoshift.errors import DataError
from oncoshift.phantom import write_phantom
from oncoshift.settings import PhantomSettings

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.layout import Layout


@pytest.mark.parametrize("content", [b"", b"no table", "cut"])
def test_a_damaged_table_names_the_stage_that_makes_it_again(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "tiles.parquet"
    write_table(pd.DataFrame({"tile_id": ["a"] * 100}), path)
    path.write_bytes(path.read_bytes()[:-20] if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"tiles\.parquet: is damaged \(.+\); run `dvc repro --force ingest`$"):
        read_table(path, ("tile_id",), "ingest")


def test_a_tile_that_became_a_pipe_is_named_and_nobody_waits_for_it(split_layout: Layout) -> None:
    tiles = pd.read_parquet(split_layout.tiles / "tiles.parquet")
    tile_id, path = tiles["tile_id"][0], tiles["path"][0]
    (split_layout.folder / path).unlink()
    os.mkfifo(split_layout.folder / path)
    with pytest.raises(DataError, match=rf"{path}: not a regular file.*; `dvc checkout` restores"):
        read_raw_tiles(split_layout, [tile_id])
    with pytest.raises(DataError, match=rf"{path}: not a regular file.*; it was there at ingest"):
        FileReader(split_layout.folder, 32)(TileSource(0, tile_id, "g", path, ""))


def test_a_tile_comes_with_its_bytes_and_its_scale_if_any_has_one(split_layout: Layout) -> None:
    table = split_layout.tiles / "tiles.parquet"
    tiles = pd.read_parquet(table)
    last, first = tiles["tile_id"].iloc[[-1, 0]]
    raw = read_raw_tiles(split_layout, [last, first])
    assert list(raw) == ["image"]
    assert raw["image"][1] == (split_layout.folder / tiles["path"][0]).read_bytes()
    write_table(tiles.assign(um_per_pixel=[0.5] + [float("nan")] * (len(tiles) - 1)), table)
    assert read_raw_tiles(split_layout, [last, first])["um_per_pixel"].fillna(0).tolist() == [0, 0.5]


def test_a_phantoms_notice_that_is_not_utf8_is_one_of_other_settings(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    settings = PhantomSettings(organs=("lung",), groups_per_class=2, tiles_per_group=1, tile_size=64)
    assert write_phantom(settings, root)
    (root / "PHANTOM.txt").write_bytes("für".encode("latin-1"))
    assert write_phantom(settings, root)
    assert not write_phantom(settings, root)
