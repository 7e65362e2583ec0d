"""NCT-CRC-HE-100K and CRC-VAL-HE-7K are read as published: normal mucosa against tumour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncoshift.errors import DataError
from oncoshift.serving.images import decode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oncoshift.data.source.adapters.base import RawTile

    Found = Callable[..., list[RawTile]]

NAMES = (
    "NCT-CRC-HE-100K/NORM/NORM-AAAWMSFI.tif",
    "NCT-CRC-HE-100K/TUM/TUM-AAAHNQNH.tif",
    "NCT-CRC-HE-100K/LYM/LYM-AAAEILWW.tif",
    "NCT-CRC-HE-100K/ADI/ADI-AAAFLCLY.tif",
    "CRC-VAL-HE-7K/NORM/NORM-TCGA-AASSYQPA.tif",
    "CRC-VAL-HE-7K/TUM/TUM-TCGA-AAICEQFN.tif",
    "CRC-VAL-HE-7K/STR/STR-TCGA-AAFCFDMG.TIF",
)


def test_normal_mucosa_and_tumour_of_both_sets(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", *NAMES)
    tiles = found("nct_crc", tmp_path / "raw")
    assert [(tile.organ, tile.label, tile.group) for tile in tiles] == [
        ("colon", 0, "NORM-TCGA-AASSYQPA"),
        ("colon", 1, "TUM-TCGA-AAICEQFN"),
        ("colon", 0, "NORM-AAAWMSFI"),
        ("colon", 1, "TUM-AAAHNQNH"),
    ]
    assert all(decode(tile.path.read_bytes()).shape == (32, 32, 3) for tile in tiles)


def test_the_root_may_be_one_of_the_sets(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", *NAMES)
    tiles = found("nct_crc", tmp_path / "raw" / "CRC-VAL-HE-7K")
    assert [tile.tile_id for tile in tiles] == ["NORM/NORM-TCGA-AASSYQPA.tif", "TUM/TUM-TCGA-AAICEQFN.tif"]


def test_classes_that_are_passed_over_are_no_data_set(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", "NCT-CRC-HE-100K/LYM/LYM-AAAEILWW.tif")
    with pytest.raises(DataError, match=r"expected NCT-CRC-HE-100K/\{NORM,TUM\}.*found NCT-CRC-HE-100K$"):
        found("nct_crc", tmp_path / "raw")
