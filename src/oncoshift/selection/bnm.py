"""Batch nuclear norm (Cui 2020, arXiv 2003.12237): large for confident and diverse predictions.

With P the softmax [N, C], ‖P‖_* = Σ singular values ≤ √(C N), attained by one-hot rows spread
evenly over classes. The value is divided by that bound, so that it does not depend on N.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import as_softmax, check_probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray


def batch_nuclear_norm(probabilities: NDArray[np.float64]) -> float:
    """Compute ‖P‖_* / √(2 N) of binary predictions.

    Args:
        probabilities: of malignant, [N], on unlabelled target tiles.

    Returns:
        0.5 (undecided everywhere), 0.707 (certain, one class) to 1 (certain, both equally often);
        higher is better.
    """
    softmax = as_softmax(check_probabilities(probabilities))
    # Singular values of P from PᵀP [2, 2]: this avoids a decomposition of N rows.
    squares = np.linalg.eigvalsh(softmax.T @ softmax)
    return float(np.sqrt(np.clip(squares, 0, None)).sum() / np.sqrt(2 * len(softmax)))
