"""Reinhard: serving's arithmetic equals staintools' to the bit, and tiles without stain are an outcome, not a crash."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from staintools import LuminosityStandardizer, ReinhardColorNormalizer
from tiny_tiles import tissue

from oncoshift.data.stain.reference import nearest_to_median, tile_statistics
from oncoshift.data.stain.reinhard import ReinhardNormalizer, fit
from oncoshift.errors import DataError
from oncoshift.serving.preprocess import apply_reinhard, decode, resize, stain_outcome

if TYPE_CHECKING:
    from pathlib import Path


def stainless(name: str) -> np.ndarray:
    """Tiles that break naive normalisation."""
    tile = np.full((32, 32, 3), {"white": 255, "pale": 230, "grey": 128, "black": 0}.get(name, 255), np.uint8)
    if name == "one pixel":
        tile[3, 4] = (120, 40, 130)
    if name == "nearly black":
        tile[:] = 0
        tile[0, :5] = (200, 100, 180)
    return tile


def assert_equals_staintools(tiles: list[np.ndarray], reference: np.ndarray) -> None:
    peer = ReinhardColorNormalizer()
    peer.fit(LuminosityStandardizer.standardize(reference.copy()))
    fitted = fit(reference)
    normalizer = ReinhardNormalizer(fitted)
    for tile in tiles:
        expected = peer.transform(LuminosityStandardizer.standardize(tile.copy()))
        np.testing.assert_array_equal(apply_reinhard(tile, fitted), expected)
        image, outcome = normalizer(tile)
        assert outcome == "normalised"
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("side", [32, 64, 97])
def test_equals_staintools_on_synthetic_tiles(side: int) -> None:
    assert_equals_staintools([tissue(seed, side) for seed in range(1, 9)], tissue(0, side))


def test_equals_staintools_on_extreme_colours() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, high, (48, 48, 3), np.uint8) for high in (256, 128, 32)]
    assert_equals_staintools(noise, tissue(0, 48))


def test_equals_staintools_on_real_tiles(shared: Path) -> None:
    files = sorted((shared / "data" / "tiles").rglob("*.jpg"))[::97]
    tiles = [decode(file.read_bytes()) for file in files]
    usable = [tile for tile in tiles if stain_outcome(tile) == "normalised"]
    assert len(usable) > 30
    assert_equals_staintools(usable, usable[0])
    assert_equals_staintools([resize(tile, 64) for tile in usable], resize(usable[0], 64))


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("white", "blank"),
        ("pale", "blank"),
        ("grey", "blank"),
        ("one pixel", "blank"),
        ("black", "flat"),
        ("nearly black", "flat"),
    ],
)
def test_a_tile_without_stain_is_kept_as_it_is(name: str, outcome: str) -> None:
    tile = stainless(name)
    reference = fit(tissue(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ReinhardNormalizer(reference)(tile).outcome == outcome
        np.testing.assert_array_equal(ReinhardNormalizer(reference)(tile).image, tile)
        np.testing.assert_array_equal(apply_reinhard(tile, reference), tile)


def test_dense_tissue_without_colour_contrast_is_flat() -> None:
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(20, 250, (32, 32, 1), np.uint8), 3, axis=2)
    assert stain_outcome(grey) == "flat"


def test_input_is_never_changed() -> None:
    tile, reference = tissue(1), fit(tissue(0))
    tile.flags.writeable = False
    before = tile.tobytes()
    apply_reinhard(tile, reference)
    ReinhardNormalizer(reference)(tile)
    fit(tile)
    assert tile.tobytes() == before


def test_a_reference_without_stain_is_refused() -> None:
    with pytest.raises(DataError, match="the reference tile is blank"):
        fit(stainless("white"))


def test_the_reference_is_the_tile_nearest_to_the_median() -> None:
    middle = tissue(0)
    darker, redder = (np.clip(middle * scale, 0, 255).astype(np.uint8) for scale in (0.4, np.array([1.0, 0.6, 0.8])))
    assert nearest_to_median([None, *map(tile_statistics, (redder, middle, darker))]) == 2
    assert nearest_to_median([(0.0,), (9.0,), (1.0,), (1.0,)]) == 2


def test_blank_tiles_cannot_be_the_reference() -> None:
    assert tile_statistics(stainless("white")) is None
    with pytest.raises(DataError, match=r"normalize\.variants"):
        nearest_to_median([None, None])
