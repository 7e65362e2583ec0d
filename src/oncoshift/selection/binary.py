"""Helpers shared by validators: checks of binary probabilities, two-column softmax, entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TINY = 1e-12
"""Probabilities are clipped this far from 0 and 1 before a logarithm."""


def check_probabilities(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Check probabilities of malignant [N] and return them as float64.

    Raises:
        ValueError: not one-dimensional, empty, not finite or outside 0 to 1. [N, 1] would broadcast
            to [N, N].
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 1 or not len(p):
        raise ValueError(f"expected probabilities of malignant [N], N ≥ 1, got shape {p.shape}")
    if not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1):
        raise ValueError("probabilities must be finite and from 0 to 1")
    return p


def check_models(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Check the probabilities of several models [M, N] and return them as float64.

    Raises:
        ValueError: not [M, N], fewer than two models, or a row that `check_probabilities` rejects.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or len(p) < 2:
        raise ValueError(f"expected probabilities of at least two models, [M, N], got shape {p.shape}")
    return np.stack([check_probabilities(row) for row in p])


def check_labels(labels: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Check labels 0 or 1, [N], and return them as booleans.

    Raises:
        ValueError: the shape is not [`count`], or a value is neither 0 nor 1.
    """
    if labels.shape != (count,):
        raise ValueError(f"expected labels [{count}], got shape {labels.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    return np.asarray(labels == 1)


def entropy_bits(probabilities: NDArray[np.float64] | np.floating) -> NDArray[np.float64]:
    """Compute the entropy of binary predictions in bits, with the shape of the input."""
    p = np.clip(probabilities, TINY, 1 - TINY)
    return np.asarray(-p * np.log2(p) - (1 - p) * np.log2(1 - p))


def as_softmax(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities of malignant [N] as those of benign and malignant, [N, 2]."""
    return np.stack([1 - probabilities, probabilities], axis=1)
