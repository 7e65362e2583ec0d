"""A tile's codes do not depend on which way round it is seen."""

from __future__ import annotations

import numpy as np
import pytest
from support.disguises import Disguise, disguised

from oncoshift.copies.features import CODE, FEATURES, THUMBNAIL, describe, encode
from oncoshift.phantom import render_phantom_tile
from oncoshift.settings import PhantomSettings


@pytest.fixture(scope="module")
def tile() -> np.ndarray:
    return render_phantom_tile(PhantomSettings(tile_size=128), "lung", 1, 0, 0).image


def test_a_mirrored_histogram_has_the_same_code() -> None:
    histograms = np.random.default_rng(0).gamma(1.0, 30.0, (50, 128)).astype(np.float32)
    cells = histograms.reshape(-1, 4, 4, 8)
    mirrored = cells[:, ::-1][..., (-np.arange(8)) % 8].reshape(-1, 128)
    codes = encode(histograms).astype(int)
    assert np.abs(codes - encode(mirrored)).max() <= 1
    assert np.abs(codes - encode(histograms[::-1])).max() > 20


def test_a_description_has_its_shapes_and_zeros_after_what_is_used(tile: np.ndarray) -> None:
    seen = describe(tile)
    assert seen.codes.shape == (FEATURES, CODE)
    assert seen.codes.dtype == np.uint8
    assert seen.frames.shape == (FEATURES, 4)
    assert seen.thumbnail.shape == (THUMBNAIL, THUMBNAIL)
    assert 30 < seen.used <= FEATURES
    flat = describe(np.full((64, 64, 3), 200, np.uint8))
    assert (flat.used, flat.digest) == (0, b"")
    assert not flat.codes.any()
    assert not flat.thumbnail.any()


def test_features_of_a_mirrored_tile_are_those_of_the_tile(tile: np.ndarray) -> None:
    one, other = describe(tile), describe(disguised(tile, Disguise(mirror=True)))
    distances = np.linalg.norm(
        one.codes[: one.used, None].astype(float) - other.codes[None, : other.used].astype(float), axis=2
    )
    assert np.median(distances.min(axis=1)) < 0.2 * np.median(distances)


def test_the_digest_tells_pixels_and_shapes_apart(tile: np.ndarray) -> None:
    changed = tile.copy()
    changed[0, 0, 0] ^= 1
    digests = [describe(image).digest for image in (tile, tile.copy(), changed, tile.reshape(64, 256, 3))]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
