"""Resampling of a tile to a model's scale, the same in packs and in serving.

A model of scale U sees `side` pixels at U µm per pixel, a field of side · U µm. Of a tile with a
larger field the centre is used. A tile with a smaller field is extended by its mirror image, to
twice its width at most.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from oncoshift.serving.limits import UnreadableImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALES = (0.01, 100.0)
"""Least and greatest µm per pixel; the finest scanners have 0.1, and at 100 no cell is left."""

_LARGEST = 2.0
"""Most widths of the tile in a crop; further mirror images would be invented tissue."""

_COARSEST = 4.0
"""Most pixels of the model per pixel of the crop; nuclei of a coarser tile would be blurs."""

_SAME = 0.005
"""Relative difference of crop and tile that is ignored: one pixel of 224."""


def compute_crop(width: int, height: int, um_per_pixel: float, side: int, wanted: float) -> float | None:
    """Compute the side, in pixels of the tile, of the square that a model sees.

    Args:
        width: of the tile, pixels.
        height: of the tile, pixels.
        um_per_pixel: scale of the tile.
        side: side of the model's tiles, pixels.
        wanted: scale of the model's tiles, µm per pixel.

    Returns:
        The side; None if it is the whole tile.

    Raises:
        UnreadableImageError: the scale is none, or the tile is too small or too coarse.
    """
    if not SCALES[0] <= um_per_pixel <= SCALES[1]:
        raise UnreadableImageError(f"{um_per_pixel} µm per pixel: expected {SCALES[0]} to {SCALES[1]}")
    crop, shorter = side * wanted / um_per_pixel, min(width, height)
    if crop > _LARGEST * shorter:
        raise UnreadableImageError(
            f"shows {shorter * um_per_pixel:.3g} µm, and the model needs {side * wanted:.3g} µm; cut larger tiles"
        )
    if crop * _COARSEST < side:
        raise UnreadableImageError(
            f"{um_per_pixel:.3g} µm per pixel is too coarse for a model at {wanted:.3g}; use a higher magnification"
        )
    return None if width == height and abs(crop / width - 1) <= _SAME else crop


def resample(image: NDArray[np.uint8], crop: float, side: int) -> NDArray[np.uint8]:
    """Resample the central square of a tile.

    Args:
        image: RGB uint8 [H, W, 3].
        crop: side of the square, in pixels of the tile; see `compute_crop`.
        side: side of the result, pixels.

    Returns:
        uint8 [side, side, 3], bilinear with antialiasing.
    """
    short = [max(math.ceil((crop - length) / 2), 0) for length in image.shape[:2]]
    if any(short):
        image = np.pad(image, [(each, each) for each in short] + [(0, 0)], mode="symmetric")
    height, width = image.shape[:2]
    left, top = (width - crop) / 2, (height - crop) / 2
    box = (left, top, left + crop, top + crop)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box))
