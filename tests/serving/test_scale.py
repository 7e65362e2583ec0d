"""A tile is resampled to a model's scale by its centre or its mirror image, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from oncoshift.serving.images import resize
from oncoshift.serving.limits import UnreadableImageError
from oncoshift.serving.scale import compute_crop, resample


def gradient(side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    ramp = np.linspace(0, 255, side).round().astype(np.uint8)
    return np.stack([np.broadcast_to(ramp, (side, side))] * 3, axis=2)


def test_the_same_field_is_the_whole_tile_at_any_number_of_pixels() -> None:
    assert compute_crop(224, 224, 0.5, 224, 0.5) is None
    assert compute_crop(448, 448, 0.25, 224, 0.5) is None
    assert compute_crop(225, 225, 0.5, 224, 0.5) is None


def test_of_a_larger_field_the_centre_is_used() -> None:
    crop = compute_crop(200, 100, 0.5, 50, 0.5)
    assert crop == 50
    tile = np.zeros((100, 200, 3), np.uint8)
    tile[25:75, 75:125] = 200
    assert (resample(tile, crop, 50) == 200).all()


def test_a_smaller_field_is_extended_by_its_mirror_image() -> None:
    crop = compute_crop(64, 64, 0.25, 48, 0.5)
    assert crop == 96
    tile = resample(gradient(64), crop, 48)
    assert tile.shape == (48, 48, 3)
    row = tile[24, :, 0].astype(int)
    assert row.argmin() in (7, 8)  # 16 pixels of the tile, at half the scale
    assert abs(row[:8][::-1] - row[8:16]).max() <= 1


def test_resampling_to_the_own_size_is_resizing() -> None:
    tile = gradient(64)
    assert (resample(tile, 64.0, 32) == resize(tile, 32)).all()


@pytest.mark.parametrize(
    ("um_per_pixel", "message"),
    [
        (0.2, r"shows 44.8 µm, and the model needs 112 µm; cut larger tiles"),
        (3.0, "3 µm per pixel is too coarse for a model at 0.5"),
        (0.0, "0.0 µm per pixel: expected 0.01 to 100.0"),
        (float("nan"), "nan µm per pixel"),
    ],
)
def test_a_scale_that_cannot_be_met_is_refused(um_per_pixel: float, message: str) -> None:
    with pytest.raises(UnreadableImageError, match=message):
        compute_crop(224, 224, um_per_pixel, 224, 0.5)
