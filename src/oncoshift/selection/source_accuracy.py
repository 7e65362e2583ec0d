"""Balanced accuracy on held-out source tiles: necessary, but blind to the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def source_accuracy(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Compute the mean of sensitivity and specificity at 0.5.

    Args:
        probabilities: of malignant, [N], on source validation tiles.
        labels: 0 or 1, [N]; both must occur.

    Returns:
        0 to 1, higher is better.
    """
    if probabilities.shape != labels.shape or probabilities.ndim != 1:
        raise ValueError(f"expected two arrays [N], got {probabilities.shape} and {labels.shape}")
    if set(np.unique(labels)) != {0, 1}:
        raise ValueError("source validation needs tiles of both labels")
    right = (probabilities > 0.5) == (labels == 1)
    return float(np.mean([right[labels == label].mean() for label in (0, 1)]))
