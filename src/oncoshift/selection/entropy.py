"""Negative entropy of the target predictions (Morerio 2018, arXiv 1711.10288).

The score is −mean H(p). A constant, confident predictor gets the best one, so use it only beside
another validator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import check_probabilities, entropy_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray


def negative_entropy(probabilities: NDArray[np.float64]) -> float:
    """Compute the mean negative entropy in bits.

    Args:
        probabilities: of malignant, [N], on unlabelled target tiles.

    Returns:
        −1 (undecided) to 0 (certain); higher is better.
    """
    return float(-np.mean(entropy_bits(check_probabilities(probabilities))))
