"""Colour conversions and the tissue mask equal OpenCV's for all 2²⁴ colours."""

from __future__ import annotations

import cv2
import numpy as np

from oncoshift.serving.stain.density import DENSITY, LUMINANCE, WHITE, densities, tissue_share
from oncoshift.serving.stain.lab import from_lab, to_lab
from oncoshift.serving.stain.luminosity import standardized


def slices():  # type: ignore[no-untyped-def]
    """Yield all colours as 256 images [256, 256, 3], each with one value of red."""
    second, third = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8), indexing="ij")
    for first in range(256):
        yield np.stack([np.full_like(second, first), second, third], axis=-1)


def packed(lab: np.ndarray) -> np.ndarray:
    """Pack LAB pixels [n, 3] into integers [n], as `to_lab` does."""
    return (lab.astype(np.int32) << np.array([0, 8, 16], np.int32)).sum(axis=1, dtype=np.int32)


def test_every_colour_goes_to_lab_and_back_as_in_opencv() -> None:
    for image in slices():
        pixels = image.reshape(-1, 3)
        expected = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).reshape(-1, 3)
        lab, counts = to_lab(pixels)
        np.testing.assert_array_equal(lab, packed(expected))
        np.testing.assert_array_equal(counts, [np.bincount(channel, minlength=256) for channel in expected.T])
        np.testing.assert_array_equal(
            from_lab(packed(pixels)).reshape(image.shape), cv2.cvtColor(image, cv2.COLOR_LAB2RGB)
        )


def test_every_colour_is_tissue_where_staintools_says_so() -> None:
    for image in slices():
        lightness = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0]
        sums = sum(LUMINANCE[c][image[..., c]] for c in range(3))
        np.testing.assert_array_equal(sums < WHITE, lightness / 255.0 < 0.8)
        assert tissue_share(image.reshape(-1, 3), LUMINANCE) == np.mean(lightness / 255.0 < 0.8)


def test_a_mapping_goes_between_the_two_ways() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 3), np.uint8)
    mapping = np.random.default_rng(1).integers(0, 256, (3, 256), np.uint8)
    mapped = np.stack([mapping[c][pixels[:, c]] for c in range(3)], axis=1)
    np.testing.assert_array_equal(from_lab(packed(pixels), mapping), from_lab(packed(mapped)))


def test_densities_take_every_so_manieth_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 3), np.uint8)
    pixels[:7] = [[0, 0, 0], [1, 1, 1], [255, 255, 255], [254, 0, 1], [30, 60, 90], [250, 250, 250], [2, 2, 2]]
    everything, tissue = densities(pixels, 7, DENSITY, LUMINANCE)
    expected = np.maximum(-np.log(np.maximum(pixels[::7].astype(np.float64), 1) / 255), 1e-6).T
    np.testing.assert_allclose(everything, expected, rtol=1e-6)
    dark = cv2.cvtColor(pixels[None, ::7], cv2.COLOR_RGB2LAB)[0, :, 0] < 204
    np.testing.assert_array_equal(tissue, everything[:, dark])


def test_luminosity_of_a_black_tile_cannot_be_standardised() -> None:
    assert standardized(np.zeros((10, 3), np.uint8)) is None
