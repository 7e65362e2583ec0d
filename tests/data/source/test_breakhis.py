"""BreakHis is read as published: label, patient and magnification come from the name."""

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

BREAST = "BreaKHis_v1/histology_slides/breast"
NAMES = (
    f"{BREAST}/benign/SOB/adenosis/SOB_B_A_14-22549AB/200X/SOB_B_A-14-22549AB-200-001.png",
    f"{BREAST}/benign/SOB/adenosis/SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png",
    f"{BREAST}/benign/SOB/phyllodes_tumor/SOB_B_PT_14-29315EF/200X/SOB_B_PT-14-29315EF-200-011.png",
    f"{BREAST}/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523/200X/SOB_M_DC-14-2523-200-001.png",
    f"{BREAST}/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523/200X/SOB_M_DC-14-2523-200-002.png",
    f"{BREAST}/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-13412/200X/SOB_M_DC-14-13412-200-001.png",
    f"{BREAST}/malignant/SOB/lobular_carcinoma/SOB_M_LC_14-13412/200X/SOB_M_LC-14-13412-200-008.png",
    f"{BREAST}/malignant/SOB/mucinous_carcinoma/SOB_M_MC_14-13418DE/400X/SOB_M_MC-14-13418DE-400-002.png",
    "BreaKHis_v1/README.txt",
)


def test_label_and_patient_come_from_the_name(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", *NAMES)
    tiles = found("breakhis", tmp_path / "raw")
    assert {tile.organ for tile in tiles} == {"breast"}
    assert [(tile.path.name, tile.label, tile.group) for tile in tiles] == [
        ("SOB_B_A-14-22549AB-200-001.png", 0, "14-22549AB"),
        ("SOB_B_PT-14-29315EF-200-011.png", 0, "14-29315EF"),
        ("SOB_M_DC-14-13412-200-001.png", 1, "14-13412"),
        ("SOB_M_DC-14-2523-200-001.png", 1, "14-2523"),
        ("SOB_M_DC-14-2523-200-002.png", 1, "14-2523"),
        ("SOB_M_LC-14-13412-200-008.png", 1, "14-13412"),
    ]
    assert all(decode(tile.path.read_bytes()).shape == (32, 32, 3) for tile in tiles)


@pytest.mark.parametrize(("magnification", "count"), [(40, 1), (200, 6), (400, 1)])
def test_one_magnification_is_taken(
    tmp_path: Path, put: Callable[..., None], found: Found, magnification: int, count: int
) -> None:
    put(tmp_path / "raw", *NAMES)
    assert len(found("breakhis", tmp_path / "raw", magnification=magnification)) == count


def test_a_magnification_that_is_not_there_is_named(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", *NAMES)
    with pytest.raises(DataError, match=r"magnification 100; there are 40, 200, 400"):
        found("breakhis", tmp_path / "raw", magnification=100)


def test_the_case_of_names_does_not_part_a_patient(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", "a/SOB_B_A-14-22549AB-200-001.png", "a/sob_b_a-14-22549ab-200-002.PNG")
    assert {tile.group for tile in found("breakhis", tmp_path / "raw")} == {"14-22549AB"}


def test_the_tar_gives_the_tiles_of_the_folder(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", *NAMES)
    archive = shutil.make_archive(str(tmp_path / "BreaKHis_v1"), "gztar", tmp_path / "raw")
    packed, plain = found("breakhis", tmp_path / archive), found("breakhis", tmp_path / "raw")
    assert [(tile.tile_id, tile.group) for tile in packed] == [(tile.tile_id, tile.group) for tile in plain]


def test_another_tree_is_refused(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", "images/breast_1.png")
    with pytest.raises(DataError, match=r"expected BreaKHis_v1/histology_slides.*found images$"):
        found("breakhis", tmp_path / "raw")
