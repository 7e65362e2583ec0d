"""From image bytes to the uint8 tile that a classifier sees; the stage `normalize` uses the same functions.

Needs NumPy and Pillow; OpenCV only where a Reinhard reference is given.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray


class UnreadableImageError(ValueError):
    """Bytes are no image that can be decoded, or an array is no uint8 RGB image."""


@dataclass(frozen=True)
class ReinhardReference:
    """Colour statistics of the reference tile (Reinhard 2001), in OpenCV's LAB as staintools scales it.

    Attributes:
        means: mean of L (0–100), a and b (about −128–127).
        stds: standard deviation of the same.
        standardize_luminosity: whether the 95th percentile of L is first stretched to white, as staintools does.
    """

    means: tuple[float, float, float]
    stds: tuple[float, float, float]
    standardize_luminosity: bool = True


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file's bytes to RGB, uint8 [H, W, 3].

    Raises:
        UnreadableImageError: the bytes are truncated or no image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"cannot decode image of {len(data)} bytes: {error}") from error


def resize(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize an RGB uint8 [H, W, 3] image to [side, side, 3], bilinear with antialiasing."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UnreadableImageError(f"expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
