"""Nuclei are found in tissue, with a threshold that follows the stain of their group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from oncoshift.anchors.nuclei import compute_nuclear_share, find_levels, find_nuclei, measure_nuclei

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def draw(nuclei: int, dark: float = 1.0, glass: int = 10) -> NDArray[np.uint8]:
    """Draw a tile with a rim of glass and so many nuclei; `dark` scales all optical densities."""
    tile = np.full((64, 64, 3), (235, 190, 215), dtype=np.float64)
    rows, columns = np.mgrid[:64, :64]
    for number in range(nuclei):
        row, column = 18 + 10 * (number % 5), 8 + 12 * (number // 5)
        tile[(rows - row) ** 2 + (columns - column) ** 2 < 16] = (90, 60, 140)
    tile[:glass] = 250
    return np.asarray(250 * (tile / 250) ** dark, np.uint8)


@pytest.mark.parametrize("places", [[(12, 12)], [(12, 12), (40, 20), (30, 50)]])
def test_nuclei_are_found_and_specks_are_not(places: list[tuple[int, int]]) -> None:
    tile = np.full((64, 64, 3), (235, 190, 215), dtype=np.uint8)
    truth = np.zeros((64, 64), dtype=bool)
    rows, columns = np.mgrid[:64, :64]
    for row, column in places:
        truth |= (rows - row) ** 2 + (columns - column) ** 2 < 36
    tile[truth] = (90, 60, 140)
    tile[60, 60] = (90, 60, 140)
    mask = find_nuclei(tile)
    overlap = (mask & truth).sum() / (mask | truth).sum()
    assert overlap > 0.85
    assert not mask[58:, 58:].any()


@pytest.mark.parametrize("value", [0, 128, 240, 255])
def test_a_flat_tile_has_no_nuclei(value: int) -> None:
    assert not find_nuclei(np.full((64, 64, 3), value, dtype=np.uint8)).any()


def test_noise_on_glass_is_no_nuclei() -> None:
    glass = 240 + np.random.default_rng(0).normal(0, 4, (64, 64, 3))
    assert not find_nuclei(np.clip(glass, 0, 255).astype(np.uint8)).any()


def test_nuclei_of_real_tiles_cover_a_plausible_area_and_are_bluer(shared: Path) -> None:
    tiles = pd.read_csv(shared / "data" / "tiles.csv").groupby(["organ", "label"]).sample(4, random_state=0)
    areas = []
    for path in tiles["path"]:
        tile = np.asarray(Image.open(shared / "data" / "tiles" / path).convert("RGB").resize((112, 112)))
        mask = find_nuclei(tile)
        areas.append(mask.mean())
        if mask.any():
            assert tile[mask][:, 0].mean() < tile[~mask][:, 0].mean() - 10, "haematoxylin takes red light"
    assert 0.03 < np.median(areas) < 0.3
    assert max(areas) < 0.5


def test_the_share_of_nuclei_is_that_of_tissue_and_not_of_the_tile() -> None:
    plain, with_glass = draw(6, glass=4), draw(6, glass=13)
    shares = [compute_nuclear_share(tile, find_levels(tile[None])) for tile in (plain, with_glass)]
    assert shares[0] == pytest.approx(6 * np.pi * 16 / (60 * 64), rel=0.25)
    assert shares[1] > shares[0]


@pytest.mark.parametrize("dark", [0.7, 1.0, 1.5])
def test_the_threshold_follows_the_stain_of_the_group(dark: float) -> None:
    measured = measure_nuclei(np.stack([draw(number, dark) for number in (1, 5, 10, 15)]))
    assert (np.diff(measured) > 0).all()
    assert measured == pytest.approx(measure_nuclei(np.stack([draw(number) for number in (1, 5, 10, 15)])), abs=0.25)


def test_a_tile_without_tissue_has_the_least_value() -> None:
    tiles = np.stack([np.full((64, 64, 3), 250, np.uint8), draw(3)])
    assert measure_nuclei(tiles)[0] == pytest.approx(np.log(0.01))


def test_malignant_tiles_have_more_nuclei_in_every_organ(shared: Path) -> None:
    tiles = pd.read_csv(shared / "data" / "tiles.csv").groupby(["organ", "label"]).sample(40, random_state=0)
    found = {}
    for organ, rows in tiles.groupby("organ"):
        measured = pd.Series(0.0, index=rows.index)
        for _, group in rows.groupby("group"):
            images = [Image.open(shared / "data" / "tiles" / path).convert("RGB") for path in group["path"]]
            measured[group.index] = measure_nuclei(np.stack([np.asarray(image) for image in images]))
        found[organ] = roc_auc_score(rows["label"] == "malignant", measured)
    assert min(found.values()) > 0.55, found
    assert found["kidney"] > 0.8
