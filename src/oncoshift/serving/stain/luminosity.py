"""Luminosity standardisation as in staintools: the 95th percentile of L becomes white."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain.lab import UNCHANGED, from_lab, to_lab
from oncoshift.serving.stain.percentile import between, rank

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERCENTILE = 95


def standardized(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Standardise the luminosity of RGB pixels [n, 3]; None if all are black."""
    lab, counts = to_lab(pixels)
    mapping = stretch(counts)
    return None if mapping is None else from_lab(lab, mapping)


def stretch(counts: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Map L, a and b, uint8 [3, 256], from their histograms [3, 256]; None for black."""
    white = _percentile(counts[0], PERCENTILE)
    if white == 0:
        return None
    mapping = UNCHANGED.copy()
    mapping[0] = np.clip(255 * np.arange(256.0) / white, 0, 255).astype(np.uint8)
    return mapping


def _percentile(counts: NDArray[np.int64], percent: float) -> float:
    """Compute numpy.percentile of integers 0–255 from their histogram `counts` [256]."""
    upto = np.cumsum(counts)
    below, share = rank(int(upto[-1]), percent)
    low, high = np.searchsorted(upto, [below, min(below + 1, upto[-1] - 1)], side="right")
    return between(float(low), float(high), share)
