"""Macenko's stain vectors: extreme directions in the main plane of optical density.

M. Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009;
choices of sign, order and percentile follow staintools (MacenkoStainExtractor).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain.compiled import compiled
from oncoshift.serving.stain.percentile import between, neighbours, rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ANGULAR_PERCENTILE = 99
"""Angles beyond this percentile, at either end, are treated as noise."""

MIN_SPREAD = 2e-5
"""Variance of optical density along the second component below which all tissue has one colour:
8-bit rounding alone gives 5e−6 at mid-grey; 430 real tiles have at least 6e−4."""

MIN_ANGLE = 0.03
"""Angle in radians below which the stain vectors are the same: rounding gives a grey tile 0.012,
and 430 real tiles have at least 0.19 by Macenko's method."""


def stain_vectors(tissue: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Estimate unit stain vectors [2, 3], haematoxylin first, from optical densities [3, k].

    Returns None if the tissue lacks two colours: the second component or the angle is negligible.
    """
    if tissue.shape[1] < 2:
        return None
    plane = main_plane(_covariance(tissue))
    if plane is None:
        return None
    turns = _turns(tissue, plane.astype(np.float32))
    ranks, shares = zip(*extreme_ranks(tissue.shape[1]), strict=True)
    return vectors_at(plane, neighbours(turns, np.array(ranks)), shares)


def main_plane(covariance: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Compute two main axes [3, 2] of a covariance [3, 3], towards more red; None if only one."""
    variances, axes = np.linalg.eigh(covariance)
    if not variances[1] > MIN_SPREAD:
        return None
    plane = axes[:, [2, 1]]
    return np.asarray(plane * np.where(plane[0] < 0, -1.0, 1.0))


def extreme_ranks(k: int) -> list[tuple[int, float]]:
    """Return the ranks of the two outermost angles among k sorted ones; see `percentile.rank`."""
    return [rank(k, 100 - ANGULAR_PERCENTILE), rank(k, ANGULAR_PERCENTILE)]


def vectors_at(
    plane: NDArray[np.float64], turns: NDArray[np.float32], shares: Sequence[float]
) -> NDArray[np.float64] | None:
    """Compute stain vectors [2, 3] at the outermost turns; see `stain_vectors`.

    Args:
        plane: two axes [3, 2].
        turns: for each end, the turns at its rank and at the next one, [2, 2].
        shares: for each end, its position between these two, 0–1.
    """
    (a, b), (c, d) = _angle(turns.astype(np.float64))
    lowest, highest = between(a, b, shares[0]), between(c, d, shares[1])
    if not highest - lowest > MIN_ANGLE:
        return None
    first, second = (plane @ np.array([np.cos(angle), np.sin(angle)]) for angle in (lowest, highest))
    stains = np.array([first, second] if first[0] > second[0] else [second, first])
    return np.asarray(stains / np.linalg.norm(stains, axis=1, keepdims=True))


def _angle(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert turns of `_turns` to radians in −π to π."""
    inner = np.where(turn > 1, 2 - turn, np.where(turn < -1, -2 - turn, turn))
    angle: NDArray[np.float64] = np.arctan2(inner, (1 - np.abs(inner)) * np.where(np.abs(turn) > 1, -1, 1))
    return angle


@compiled
def _turns(tissue: NDArray[np.float32], plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute values [k] that grow with the angle of (u, v): v / (|u| + |v|), and on to ±2."""
    found = np.empty(tissue.shape[1], np.float32)
    r, g, b = tissue[0], tissue[1], tissue[2]
    zero, two, tiny = np.float32(0), np.float32(2), np.float32(1e-12)
    for i in range(len(found)):
        u = r[i] * plane[0, 0] + g[i] * plane[1, 0] + b[i] * plane[2, 0]
        v = r[i] * plane[0, 1] + g[i] * plane[1, 1] + b[i] * plane[2, 1]
        turn = v / (abs(u) + abs(v) + tiny)
        left = (two if v >= zero else -two) - turn
        found[i] = left if u < zero else turn
    return found


@compiled
def _covariance(tissue: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the covariance [3, 3] of columns; subtracting the first column keeps digits."""
    k = tissue.shape[1]
    mean, products = np.zeros(3), np.zeros((3, 3))
    r, g, b = tissue[0], tissue[1], tissue[2]
    r0, g0, b0 = np.float64(r[0]), np.float64(g[0]), np.float64(b[0])
    s0 = s1 = s2 = p00 = p01 = p02 = p11 = p12 = p22 = 0.0
    for i in range(k):
        x, y, z = r[i] - r0, g[i] - g0, b[i] - b0
        s0 += x
        s1 += y
        s2 += z
        p00 += x * x
        p01 += x * y
        p02 += x * z
        p11 += y * y
        p12 += y * z
        p22 += z * z
    mean[:] = s0 / k, s1 / k, s2 / k
    products[0, :] = p00, p01, p02
    products[1, :] = p01, p11, p12
    products[2, :] = p02, p12, p22
    spread: NDArray[np.float64] = (products - k * np.outer(mean, mean)) / (k - 1)
    return spread
