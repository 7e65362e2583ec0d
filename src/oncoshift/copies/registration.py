"""Registration of two thumbnails, and their correlation where they overlap.

Gauss–Newton on the six parameters of an affine map minimises the squared difference of the pixels
after removing mean and gain (Lucas and Kanade 1981; the enhanced correlation coefficient of
Evangelidis and Psarakis 2008 has the same aim).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEPS = 12
_PATIENCE = 4
"""Steps after which a map with a hopeless correlation is given up."""

_HOPELESS = 0.4
_STILL = 0.02
"""Convergence threshold: the largest movement of any pixel in one step, in pixels."""

_FEWEST = 256
"""Least overlap in pixels, one sixteenth of a thumbnail."""

_FLAT = 1.0
"""Variance, in squared grey levels, below which pixels count as featureless."""


@compiled
def align(
    moving: NDArray[np.float32], fixed: NDArray[np.float32], start: NDArray[np.float64]
) -> tuple[float, float, NDArray[np.float64]]:
    """Refine a map and score it.

    Args:
        moving: [S, S], the thumbnail that is sampled.
        fixed: [S, S], the thumbnail whose pixel grid is used.
        start: [6], from pixels of `fixed` to pixels of `moving`, in the order of `fit_affine`.

    Returns:
        The correlation over the overlap, in [-1, 1]; the share of `fixed` that `moving` covers; and
        the best map. If the overlap is too small or featureless, the correlation is -1.
    """
    affine = start.copy()
    best_score, best_share, best_affine = -1.0, 0.0, start.copy()
    for step in range(_STEPS + 1):
        values = _sample(moving, fixed, affine)
        score, gain = _correlate(values)
        if score > best_score:
            best_score, best_share, best_affine = score, len(values) / fixed.size, affine.copy()
        if gain == 0.0 or step == _STEPS or (step >= _PATIENCE and best_score < _HOPELESS):
            break
        change = _solve(values, gain)
        affine = affine + change
        if np.abs(change[2::3]).max() + len(fixed) * (np.abs(change[:2]).sum() + np.abs(change[3:5]).sum()) < _STILL:
            break
    return best_score, best_share, best_affine


@compiled
def _sample(
    moving: NDArray[np.float32], fixed: NDArray[np.float32], affine: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sample the overlap as rows [N, 8].

    A row holds the values of `moving` and `fixed`, and the derivatives of `moving` by the six
    parameters of the map.
    """
    side = len(fixed)
    rows = np.empty((side * side, 8))
    size = 0
    for y in range(side):
        for x in range(side):
            u = affine[0] * x + affine[1] * y + affine[2]
            v = affine[3] * x + affine[4] * y + affine[5]
            if not (0.0 <= u < side - 1 and 0.0 <= v < side - 1):
                continue
            i, j = int(u), int(v)
            s, t = u - i, v - j
            a, b, c, d = moving[j, i], moving[j, i + 1], moving[j + 1, i], moving[j + 1, i + 1]
            along_x = (b - a) * (1 - t) + (d - c) * t
            along_y = (c - a) * (1 - s) + (d - b) * s
            rows[size, 0] = a * (1 - s) * (1 - t) + b * s * (1 - t) + c * (1 - s) * t + d * s * t
            rows[size, 1] = fixed[y, x]
            rows[size, 2], rows[size, 3], rows[size, 4] = along_x * x, along_x * y, along_x
            rows[size, 5], rows[size, 6], rows[size, 7] = along_y * x, along_y * y, along_y
            size += 1
    return rows[:size]


@compiled
def _correlate(rows: NDArray[np.float64]) -> tuple[float, float]:
    """Compute the correlation, and the gain from moving to fixed; (-1, 0) if undefined."""
    if len(rows) < _FEWEST:
        return -1.0, 0.0
    moving = rows[:, 0] - rows[:, 0].mean()
    fixed = rows[:, 1] - rows[:, 1].mean()
    of_moving, of_fixed = (moving * moving).mean(), (fixed * fixed).mean()
    if of_moving < _FLAT or of_fixed < _FLAT:
        return -1.0, 0.0
    return (moving * fixed).mean() / np.sqrt(of_moving * of_fixed), np.sqrt(of_fixed / of_moving)


@compiled
def _solve(rows: NDArray[np.float64], gain: float) -> NDArray[np.float64]:
    """Solve for the Gauss–Newton step."""
    means = np.zeros(8)
    for row in range(len(rows)):
        for k in range(8):
            means[k] += rows[row, k]
    means /= len(rows)
    normal = np.zeros((6, 6))
    pull = np.zeros(6)
    slope = np.empty(6)
    for row in range(len(rows)):
        rest = (rows[row, 1] - means[1]) - gain * (rows[row, 0] - means[0])
        for k in range(6):
            slope[k] = gain * (rows[row, 2 + k] - means[2 + k])
        for k in range(6):
            pull[k] += slope[k] * rest
            for m in range(k, 6):
                normal[k, m] += slope[k] * slope[m]
    for k in range(6):
        for m in range(k):
            normal[k, m] = normal[m, k]
        # Keeps the step finite where the tile has structure in one direction only.
        normal[k, k] = normal[k, k] * 1.001 + 1e-3
    return np.linalg.solve(normal, pull).astype(np.float64)
