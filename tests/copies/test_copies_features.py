"""A tile's descriptors do not change when the tile is rotated or mirrored."""

from __future__ import annotations

import numpy as np
import pytest
from support.disguises import Disguise, disguised

from oncoshift.copies.features import DESCRIPTOR_SIZE, FEATURES, THUMBNAIL, encode_histograms, extract_features
from oncoshift.phantom import render_phantom_tile
from oncoshift.settings import PhantomSettings


@pytest.fixture(scope="module")
def tile() -> np.ndarray:
    return render_phantom_tile(PhantomSettings(tile_size=128), "lung", 1, 0, 0).image


def test_a_mirrored_histogram_has_the_same_code() -> None:
    histograms = np.random.default_rng(0).gamma(1.0, 30.0, (50, 128)).astype(np.float32)
    cells = histograms.reshape(-1, 4, 4, 8)
    mirrored = cells[:, ::-1][..., (-np.arange(8)) % 8].reshape(-1, 128)
    descriptors = encode_histograms(histograms).astype(int)
    assert np.abs(descriptors - encode_histograms(mirrored)).max() <= 1
    assert np.abs(descriptors - encode_histograms(histograms[::-1])).max() > 20


def test_a_description_has_its_shapes_and_zeros_after_what_is_used(tile: np.ndarray) -> None:
    seen = extract_features(tile)
    assert seen.descriptors.shape == (FEATURES, DESCRIPTOR_SIZE)
    assert seen.descriptors.dtype == np.uint8
    assert seen.keypoints.shape == (FEATURES, 4)
    assert seen.thumbnail.shape == (THUMBNAIL, THUMBNAIL)
    assert 30 < seen.used <= FEATURES
    flat = extract_features(np.full((64, 64, 3), 200, np.uint8))
    assert (flat.used, flat.digest) == (0, b"")
    assert not flat.descriptors.any()
    assert not flat.thumbnail.any()


def test_features_of_a_mirrored_tile_are_those_of_the_tile(tile: np.ndarray) -> None:
    one, other = extract_features(tile), extract_features(disguised(tile, Disguise(mirror=True)))
    distances = np.linalg.norm(
        one.descriptors[: one.used, None].astype(float) - other.descriptors[None, : other.used].astype(float), axis=2
    )
    assert np.median(distances.min(axis=1)) < 0.2 * np.median(distances)


def test_the_digest_tells_pixels_and_shapes_apart(tile: np.ndarray) -> None:
    changed = tile.copy()
    changed[0, 0, 0] ^= 1
    digests = [extract_features(image).digest for image in (tile, tile.copy(), changed, tile.reshape(64, 256, 3))]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
