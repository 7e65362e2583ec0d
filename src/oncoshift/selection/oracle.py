"""Balanced accuracy on the target with its labels: only for measuring validators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.selection.source_accuracy import source_accuracy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def oracle(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Compute the mean of sensitivity and specificity at 0.5 on labelled target tiles.

    Args:
        probabilities: of malignant, [N].
        labels: 0 or 1, [N]; both must occur.

    Returns:
        0 to 1, higher is better.
    """
    return source_accuracy(probabilities, labels)
