"""Soft neighbourhood density, SND (Saito 2021, arXiv 2108.10860), of target tiles.

Rows f of the softmax [N, C], or of any feature, are scaled to length 1; P_ij = exp(f_i · f_j / τ) /
Σ_{k≠i} exp(f_i · f_k / τ) with P_ii left out, and SND is the mean over i of the entropy of P_i.
Dense clusters give flat rows, so a high entropy. A constant predictor is one dense cluster: it
reaches the maximum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import as_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

SND_TILES = 2000
"""Most tiles that are compared with one another; of more, evenly spaced ones are used."""

_ROWS = 512
"""Rows of the similarity matrix in memory at once."""


def prediction_density(probabilities: NDArray[np.float64]) -> float:
    """Compute SND of probabilities of malignant [T]; see `soft_neighbourhood_density`."""
    every = -(-len(probabilities) // SND_TILES)
    return soft_neighbourhood_density(as_softmax(probabilities[::every]))


def soft_neighbourhood_density(features: NDArray[np.floating], temperature: float = 0.05) -> float:
    """Compute SND in nats.

    Args:
        features: [N, D], N ≥ 2, of unlabelled target tiles; the paper passes the softmax
            (`binary.as_softmax`).
        temperature: τ.

    Returns:
        0 to ln(N − 1); higher is better. Compare only models on the same tiles.

    Raises:
        ValueError: features are not [N, D], or have fewer than two rows.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"expected features [N, D], N ≥ 2, got shape {features.shape}")
    values = features.astype(np.float64)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    total = sum(_row_entropies(values, first, temperature).sum() for first in range(0, len(values), _ROWS))
    return float(total / len(values))


def _row_entropies(values: NDArray[np.float64], first: int, temperature: float) -> NDArray[np.float64]:
    """Compute the entropy of the rows of P from `first` on, [≤ `_ROWS`]."""
    block = values[first : first + _ROWS] @ values.T / temperature
    rows = np.arange(len(block))
    block[rows, first + rows] = -np.inf
    block -= block.max(axis=1, keepdims=True)
    weights = np.exp(block)
    sums = weights.sum(axis=1)
    block[rows, first + rows] = 0.0  # its weight is 0, and −∞ × 0 would be NaN
    return np.asarray(np.log(sums) - (weights * block).sum(axis=1) / sums)
