"""Similarity of two aligned thumbnails in their worst regions: nuclei must match, not just layout.

Two sections of alveoli or tubules can be aligned so that their large shapes correlate at 0.9, but
their nuclei do not match. So the correlation is that of fine detail around each pixel, and the
worst tenth of the textured pixels decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DETAIL = 3.0
"""Standard deviation, in thumbnail pixels, of the blur that is subtracted; detail of the size of
nuclei remains."""

_AROUND = 4.0
"""Standard deviation, in thumbnail pixels, of the window of a pixel's correlation."""

_TEXTURED = 0.2
"""Share of the mean energy of detail from which a pixel counts as textured; below it there is only
noise."""

_WORST = 10.0
"""Percentile of the textured pixels' correlations that is the score."""


def worst_correlation(moving: NDArray[np.float32], fixed: NDArray[np.float32], affine: NDArray[np.float64]) -> float:
    """Compute the correlation of fine detail in the worst tenth of neighbourhoods.

    Args:
        moving: [S, S], the thumbnail that is sampled.
        fixed: [S, S], the thumbnail whose pixel grid is used.
        affine: [2, 3], from pixels of `fixed` to pixels of `moving`.

    Returns:
        In [-1, 1]; -1 if the overlap has no detail.
    """
    import cv2

    size = (fixed.shape[1], fixed.shape[0])
    warped = cv2.warpAffine(moving, affine, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    seen = cv2.warpAffine(np.ones_like(moving), affine, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    # Pixels at the border of the overlap are interpolated with the black beyond it.
    seen = cv2.erode(seen, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    one, other = _extract_detail(warped, seen), _extract_detail(fixed, seen)
    energy_one, energy_other = _average_around(one * one, seen), _average_around(other * other, seen)
    energy = energy_one + energy_other
    inside = seen > 0
    if not inside.any() or energy[inside].mean() <= 0:
        return -1.0
    counts = inside & (energy > _TEXTURED * energy[inside].mean())
    # The squared grey level in the denominator keeps the correlation low if one tile is
    # featureless.
    local = _average_around(one * other, seen)[counts] / np.sqrt(energy_one[counts] * energy_other[counts] + 1.0)
    return float(np.percentile(local, _WORST))


def _extract_detail(image: NDArray[np.float32], seen: NDArray[np.float32]) -> NDArray[np.float32]:
    return (image - _blur(image * seen, seen, _DETAIL)) * seen


def _average_around(image: NDArray[np.float32], seen: NDArray[np.float32]) -> NDArray[np.float32]:
    return _blur(image, seen, _AROUND)


def _blur(image: NDArray[np.float32], seen: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Blur within the overlap (Knutsson and Westin's normalised convolution).

    `image` must be zero outside of it.
    """
    import cv2

    blurred = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    weight = cv2.GaussianBlur(seen, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred / np.maximum(weight, 1e-6), dtype=np.float32)
