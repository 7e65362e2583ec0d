"""PatchCamelyon is read as published: rows of HDF5 files become PNGs, grouped by slide."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from oncoshift.data.ingest import ingest
from oncoshift.data.source.opening import DataSet
from oncoshift.data.source.scan import scan
from oncoshift.errors import DataError
from oncoshift.retraining.inputs import count_tiles_by_organ
from oncoshift.serving.images import decode
from oncoshift.settings import IngestSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.data.source.adapters.base import RawTile

    Found = Callable[..., list[RawTile]]

NAME = "camelyonpatch_level_2_split_{}"


def write_split(folder: Path, split: str, count: int = 5, meta: bool = True) -> NDArray[np.uint8]:
    """Write a split's three files as published, with alternating labels and two rows a slide."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(len(split)).integers(0, 256, (count, 96, 96, 3)).astype(np.uint8)
    with h5py.File(folder / f"{NAME.format(split)}_x.h5", "w") as file:
        file["x"] = images
    with h5py.File(folder / f"{NAME.format(split)}_y.h5", "w") as file:
        file["y"] = (np.arange(count, dtype=np.uint8) % 2).reshape(count, 1, 1, 1)
    if meta:
        lines = [",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"]
        lines += [f"{row},1,2,True,{row % 2 == 1},camelyon16_train_tumor_{row // 2:03}" for row in range(count)]
        (folder / f"{NAME.format(split)}_meta.csv").write_text("\n".join(lines) + "\n")
    return images


def test_rows_become_the_same_pixels_with_label_and_slide(tmp_path: Path, found: Found) -> None:
    images = write_split(tmp_path / "raw" / "pcam", "valid")
    tiles = found("patchcamelyon", tmp_path / "raw")
    assert [(tile.tile_id, tile.organ, tile.label, tile.group) for tile in tiles] == [
        (f"{NAME.format('valid')}/{row}.png", "lymph_node", row % 2, f"camelyon16_train_tumor_{row // 2:03}")
        for row in range(5)
    ]
    for tile, image in zip(tiles, images, strict=True):
        assert tile.path == tmp_path / "tiles" / "unpacked" / tile.tile_id
        np.testing.assert_array_equal(decode(tile.path.read_bytes()), image)


def test_tiles_that_are_written_out_are_behind_no_link(tmp_path: Path) -> None:
    write_split(tmp_path / "raw", "valid")
    settings = IngestSettings(
        adapter="patchcamelyon", min_tissue=0, min_saturation=0, min_stain_share=0, min_eosin_share=0
    )
    report = ingest(settings, tmp_path / "raw", tmp_path / "tiles", base=tmp_path)
    assert report.tiles > 0
    assert not [warning for warning in report.warnings if "links" in warning]


def test_without_slides_each_tile_is_a_group(tmp_path: Path, found: Found) -> None:
    write_split(tmp_path / "raw", "test", meta=False)
    assert len({tile.group for tile in found("patchcamelyon", tmp_path / "raw")}) == 5


def test_images_are_written_once_and_stale_splits_go(tmp_path: Path, found: Found) -> None:
    write_split(tmp_path / "raw", "test")
    write_split(tmp_path / "raw", "valid")
    first = found("patchcamelyon", tmp_path / "raw")
    assert len(first) == 10
    times = {tile.path: tile.path.stat().st_mtime_ns for tile in first}
    for file in (tmp_path / "raw").glob("*test*"):
        file.unlink()
    second = found("patchcamelyon", tmp_path / "raw")
    assert len(second) == 5
    assert all(tile.path.stat().st_mtime_ns == times[tile.path] for tile in second)
    assert not (tmp_path / "tiles" / "unpacked" / NAME.format("test")).exists()


def test_listing_writes_nothing(tmp_path: Path) -> None:
    write_split(tmp_path / "raw", "valid")
    settings = IngestSettings(adapter="patchcamelyon")
    assert count_tiles_by_organ(settings, tmp_path / "raw") == {"lymph_node": 5}
    scanned = scan(settings, DataSet(tmp_path / "raw", tmp_path / "unpacked"))
    assert [tile.path.parent.parent for tile in scanned.tiles] == [tmp_path / "unpacked"] * 5
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_zip_of_the_files_is_read(tmp_path: Path, found: Found) -> None:
    write_split(tmp_path / "raw", "valid")
    archive = shutil.make_archive(str(tmp_path / "pcam"), "zip", tmp_path / "raw")
    assert len(found("patchcamelyon", tmp_path / archive)) == 5


def test_a_file_that_is_not_as_published_is_refused_and_leaves_nothing(tmp_path: Path, found: Found) -> None:
    raw = tmp_path / "raw"
    write_split(raw, "valid")
    x = raw / f"{NAME.format('valid')}_x.h5"
    whole = x.read_bytes()
    with h5py.File(x, "w") as file:
        file["x"] = np.zeros((5, 64, 64, 3), np.uint8)
    with pytest.raises(DataError, match=r"dataset x is uint8 \[5, 64, 64, 3\], expected uint8 \[5, 96, 96, 3\]"):
        found("patchcamelyon", raw)
    with h5py.File(x, "w") as file:
        file["images"] = 1
    with pytest.raises(DataError, match=r"has no dataset x, but images"):
        found("patchcamelyon", raw)
    x.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no readable HDF5 file"):
        found("patchcamelyon", raw)
    assert not list((tmp_path / "tiles" / "unpacked").iterdir())


def test_missing_and_packed_files_are_named(tmp_path: Path, found: Found) -> None:
    raw = tmp_path / "raw"
    write_split(raw, "train")
    (raw / f"{NAME.format('train')}_meta.csv").write_text("wsi\nslide_1\n")
    with pytest.raises(DataError, match="names 1 slides in 1 rows"):
        found("patchcamelyon", raw)
    (raw / f"{NAME.format('train')}_y.h5").unlink()
    with pytest.raises(DataError, match=r"labels are missing; put camelyonpatch_level_2_split_train_y\.h5 beside it"):
        found("patchcamelyon", raw)
    (raw / f"{NAME.format('train')}_x.h5").rename(raw / f"{NAME.format('train')}_x.h5.gz")
    with pytest.raises(DataError, match=r"run `gunzip"):
        found("patchcamelyon", raw)
