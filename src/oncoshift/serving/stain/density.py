"""Optical density and tissue of RGB pixels, by lookup tables.

Optical density is −ln(I / 255), at least 1e−6, and that of 0 is that of 1 (staintools,
convert_RGB_to_OD). A pixel is tissue if OpenCV's 8-bit L is below 0.8 · 255
(LuminosityThresholdTissueLocator). L increases with an integer luminance, so comparing that sum
with a threshold decides without a conversion to LAB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain.compiled import compiled
from oncoshift.serving.stain.lab import LINEAR, TO_XYZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUMINANCE = np.ascontiguousarray((TO_XYZ[1][:, None] * LINEAR[None, :]).astype(np.int32))
"""Contribution of each channel's value to the luminance, int32 [3, 256]."""

WHITE = 4_696_064
"""The least luminance with an 8-bit L of 204; pixels below it are tissue."""

DENSITY = np.maximum(-np.log(np.maximum(np.arange(256), 1) / 255), 1e-6).astype(np.float32)
"""Optical density of 0–255, float32 [256], about 0–5.54."""


@compiled
def densities(
    pixels: NDArray[np.uint8], step: int, table: NDArray[np.float32], luminance: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the optical density of every `step`-th pixel.

    Args:
        pixels: RGB [n, 3].
        step: at least 1.
        table: `DENSITY`.
        luminance: `LUMINANCE`.

    Returns:
        Densities of all these pixels [3, m], and of those that are tissue [3, k].
    """
    taken = (len(pixels) + step - 1) // step
    everything = np.empty((3, taken), np.float32)
    tissue = np.empty((3, taken), np.float32)
    k = 0
    for i in range(taken):
        red, green, blue = pixels[i * step, 0], pixels[i * step, 1], pixels[i * step, 2]
        r, g, b = table[red], table[green], table[blue]
        everything[0, i], everything[1, i], everything[2, i] = r, g, b
        tissue[0, k], tissue[1, k], tissue[2, k] = r, g, b
        k += luminance[0, red] + luminance[1, green] + luminance[2, blue] < WHITE
    # A copy, because kernels on a non-contiguous slice are compiled without vector instructions.
    return everything, tissue[:, :k].copy()


@compiled
def tissue_share(pixels: NDArray[np.uint8], luminance: NDArray[np.int32]) -> float:
    """Return the share of tissue among pixels [n, 3], 0–1."""
    k = 0
    for i in range(len(pixels)):
        value = luminance[0, pixels[i, 0]] + luminance[1, pixels[i, 1]] + luminance[2, pixels[i, 2]]
        k += value < WHITE
    return k / max(len(pixels), 1)
