"""Kaggle's Multi Cancer data set is read as published, without its CT images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oncoshift.data.source.adapters.base import RawTile

    Found = Callable[..., list[RawTile]]

ROOT = "Multi Cancer/Multi Cancer"
TISSUE = (
    f"{ROOT}/Lung and Colon Cancer/lung_aca/lung_aca_0001.jpg",
    f"{ROOT}/Lung and Colon Cancer/lung_bnt/lung_bnt_0001.jpg",
    f"{ROOT}/Lung and Colon Cancer/lung_scc/lung_scc_0001.jpg",
    f"{ROOT}/Lung and Colon Cancer/colon_aca/colon_aca_0001.jpg",
    f"{ROOT}/Lung and Colon Cancer/colon_bnt/colon_bnt_0001.jpg",
    f"{ROOT}/Breast Cancer/breast_benign/breast_benign_0001.jpg",
    f"{ROOT}/Breast Cancer/breast_malignant/breast_malignant_0001.jpg",
    f"{ROOT}/Oral Cancer/oral_normal/oral_normal_0001.jpg",
    f"{ROOT}/ALL/all_benign/all_benign_0001.jpg",
    f"{ROOT}/Brain Cancer/brain_glioma/brain_glioma_0001.jpg",
)
KIDNEY = (
    f"{ROOT}/Kidney Cancer/kidney_normal/kidney_normal_0001.jpg",
    f"{ROOT}/Kidney Cancer/kidney_tumor/kidney_tumor_0001.jpg",
)


def test_organs_and_labels(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", *TISSUE)
    tiles = found("multi_cancer", tmp_path / "raw")
    assert [(tile.group, tile.organ, tile.label) for tile in tiles] == [
        ("breast_benign_0001", "breast", 0),
        ("breast_malignant_0001", "breast", 1),
        ("colon_aca_0001", "colon", 1),
        ("colon_bnt_0001", "colon", 0),
        ("lung_aca_0001", "lung", 1),
        ("lung_bnt_0001", "lung", 0),
    ]
    assert len(found("multi_cancer", tmp_path / "raw", include_squamous=True)) == 7


def test_its_kidney_is_refused_because_it_is_ct(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", *TISSUE, *KIDNEY)
    with pytest.raises(DataError, match=r"abdominal CT, not histology.*'Kidney Cancer'.*allow_ct: true"):
        found("multi_cancer", tmp_path / "raw")


def test_its_kidney_is_taken_where_it_is_allowed(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", *TISSUE, *KIDNEY)
    kidney = [tile for tile in found("multi_cancer", tmp_path / "raw", allow_ct=True) if tile.organ == "kidney"]
    assert [(tile.group, tile.label) for tile in kidney] == [("kidney_normal_0001", 0), ("kidney_tumor_0001", 1)]


def test_another_tree_is_refused(tmp_path: Path, put: Callable[..., None], found: Found) -> None:
    put(tmp_path / "raw", "lung_image_sets/lung_n/lungn1.jpeg")
    with pytest.raises(DataError, match=r"(?s)expected folders lung_aca, lung_bnt.*adapter: lc25000$"):
        found("multi_cancer", tmp_path / "raw")
