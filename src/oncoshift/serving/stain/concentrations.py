"""Stain concentrations of pixels, and pixels painted with other stains.

By the Beer–Lambert law, a pixel's optical density x is α₁d₁ + α₂d₂ with unit stain vectors d. The
concentrations α minimise ½‖x − Dα‖² + λ‖α‖₁ with α ≥ 0 and λ = 0.01 (staintools,
get_concentrations; spams.lasso, mode 2). With two stains that has a closed form: the solution
without the bounds where both are positive, else the better of the two single-stain solutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPARSITY = 0.01
"""λ."""

_BLOCK = 512
_ZERO, _ONE, _WHITE = np.float32(0), np.float32(1), np.float32(255)
_FAR = np.float32(7)
"""Optical density above which a pixel is black: 255 e⁻⁷ is 0.2."""

_32ND = np.float32(1 / 32)
_E2, _E3, _E4 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)


@compiled
def concentrations(density: NDArray[np.float32], stains: NDArray[np.float32], sparsity: float) -> NDArray[np.float32]:
    """Compute concentrations [2, n] from optical densities [3, n] and unit stain vectors [2, 3]."""
    n = density.shape[1]
    found = np.empty((2, n), np.float32)
    h0, h1, h2, e0, e1, e2 = stains[0, 0], stains[0, 1], stains[0, 2], stains[1, 0], stains[1, 1], stains[1, 2]
    overlap = h0 * e0 + h1 * e1 + h2 * e2
    scale = _ONE / (_ONE - overlap * overlap)
    penalty = np.float32(sparsity)
    r, g, b = density[0], density[1], density[2]
    first, second = found[0], found[1]
    for i in range(n):
        p = h0 * r[i] + h1 * g[i] + h2 * b[i] - penalty
        q = e0 * r[i] + e1 * g[i] + e2 * b[i] - penalty
        s = (p - overlap * q) * scale
        t = (q - overlap * p) * scale
        first[i] = max(p if t < _ZERO else s, _ZERO)
        second[i] = max(q if s < _ZERO else t, _ZERO)
    return found


@compiled
def restain(
    pixels: NDArray[np.uint8],
    stains: NDArray[np.float32],
    target: NDArray[np.float32],
    table: NDArray[np.float32],
    sparsity: float,
) -> NDArray[np.uint8]:
    """Paint RGB pixels [n, 3] with other stains: trunc(255 · exp(−α · target)).

    Args:
        pixels: RGB [n, 3].
        stains: unit stain vectors of these pixels, [2, 3].
        target: stain vectors to paint with, each times the ratio of the largest concentrations, [2,
            3].
        table: `density.DENSITY`.
        sparsity: `SPARSITY`.
    """
    n = len(pixels)
    painted = np.empty((n, 3), np.uint8)
    density = np.empty((3, _BLOCK), np.float32)
    r, g, b = density[0], density[1], density[2]
    levels = np.empty((3, _BLOCK), np.uint8)
    red, green, blue = levels[0], levels[1], levels[2]
    for start in range(0, n, _BLOCK):
        size = min(_BLOCK, n - start)
        for i in range(size):
            r[i] = table[pixels[start + i, 0]]
            g[i] = table[pixels[start + i, 1]]
            b[i] = table[pixels[start + i, 2]]
        found = concentrations(density, stains, sparsity)
        first, second = found[0], found[1]
        for i in range(size):
            red[i] = _level(first[i] * target[0, 0] + second[i] * target[1, 0])
            green[i] = _level(first[i] * target[0, 1] + second[i] * target[1, 1])
            blue[i] = _level(first[i] * target[0, 2] + second[i] * target[1, 2])
        for i in range(size):
            painted[start + i, 0], painted[start + i, 1], painted[start + i, 2] = red[i], green[i], blue[i]
    return painted


@compiled
def _level(density: np.float32) -> np.uint8:
    """Compute trunc(255 e⁻ˣ), x ≥ 0, within 1e−5: the 4th-order series of e^(−x/32), ^32."""
    x = min(max(density, _ZERO), _FAR) * _32ND
    y = _ONE - x * (_ONE - x * (_E2 - x * (_E3 - x * _E4)))
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    return np.uint8(np.int32(_WHITE * y))
