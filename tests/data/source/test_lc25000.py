"""LC25000 is read as published: five classes, squamous carcinoma only on request."""

from __future__ import annotations

import shutil
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
    "lung_image_sets/lung_aca/lungaca1.jpeg",
    "lung_image_sets/lung_n/lungn1.jpeg",
    "lung_image_sets/lung_n/lungn2.JPEG",
    "lung_image_sets/lung_scc/lungscc1.jpeg",
    "colon_image_sets/colon_aca/colonca1.jpeg",
    "colon_image_sets/colon_n/colonn1.jpeg",
    "colon_image_sets/colon_n/Thumbs.db",
    "lung_image_sets/lung_n/.lungn1.jpeg",
)


def test_organs_labels_and_groups(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw" / "lung_colon_image_set", *NAMES)
    tiles = found("lc25000", tmp_path / "raw")
    assert [(tile.tile_id, tile.organ, tile.label, tile.group) for tile in tiles] == [
        ("lung_colon_image_set/colon_image_sets/colon_aca/colonca1.jpeg", "colon", 1, "colonca1"),
        ("lung_colon_image_set/colon_image_sets/colon_n/colonn1.jpeg", "colon", 0, "colonn1"),
        ("lung_colon_image_set/lung_image_sets/lung_aca/lungaca1.jpeg", "lung", 1, "lungaca1"),
        ("lung_colon_image_set/lung_image_sets/lung_n/lungn1.jpeg", "lung", 0, "lungn1"),
        ("lung_colon_image_set/lung_image_sets/lung_n/lungn2.JPEG", "lung", 0, "lungn2"),
    ]
    assert all(decode(tile.path.read_bytes()).shape == (32, 32, 3) for tile in tiles)


def test_squamous_is_malignant_where_it_is_asked_for(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", *NAMES)
    tiles = found("lc25000", tmp_path / "raw", include_squamous=True)
    assert [(tile.organ, tile.label) for tile in tiles if tile.group == "lungscc1"] == [("lung", 1)]
    assert len(tiles) == 6


@pytest.mark.parametrize("wrapper", ["", "LC25000", "LC25000/lung_colon_image_set"])
def test_folders_above_and_the_case_of_names_do_not_matter(
    tmp_path: Path, put: Callable[..., None], found: Found, wrapper: str
) -> None:
    put(tmp_path / "raw" / wrapper, "Lung_Image_Sets/LUNG_N/lungn1.jpeg", "Lung_Image_Sets/Lung_ACA/lungaca1.jpeg")
    assert {tile.group: tile.label for tile in found("lc25000", tmp_path / "raw")} == {"lungn1": 0, "lungaca1": 1}


def test_the_zip_gives_the_tiles_of_the_folder(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw" / "lung_colon_image_set", *NAMES)
    archive = shutil.make_archive(str(tmp_path / "LC25000"), "zip", tmp_path / "raw")
    packed, plain = found("lc25000", tmp_path / archive), found("lc25000", tmp_path / "raw")
    assert [tile.tile_id for tile in packed] == [tile.tile_id for tile in plain]


def test_another_tree_is_refused_with_what_is_there(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", "NORM/NORM-AAAWMSFI.tif", "readme.txt")
    with pytest.raises(DataError, match=r"(?s)expected lung_image_sets.*found NORM, readme.txt.*adapter: nct_crc$"):
        found("lc25000", tmp_path / "raw")
