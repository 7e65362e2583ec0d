"""Average thresholded confidence, ATC (Garg 2022, arXiv 2201.04234).

The threshold t on the confidence s = max(p, 1 − p) is set on labelled source tiles so that the
share of tiles below it equals their error rate; the estimate is the share of target tiles that
reach it. With two classes negative entropy, the paper's other score, orders tiles as s does, so it
gives the same estimate. A confident model with inverted classes gets a high estimate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import check_labels, check_probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray


def average_thresholded_confidence(
    source: NDArray[np.float64], labels: NDArray[np.int64], target: NDArray[np.float64]
) -> float:
    """Estimate the accuracy on the target.

    Args:
        source: probabilities of malignant, [N], on source validation tiles.
        labels: 0 or 1, [N].
        target: probabilities of malignant, [T], on unlabelled target tiles.

    Returns:
        0 to 1, higher is better.
    """
    p, q = check_probabilities(source), check_probabilities(target)
    wrong = int(((p > 0.5) != check_labels(labels, len(p))).sum())
    if wrong == len(p):
        return 0.0
    threshold = np.sort(np.maximum(p, 1 - p))[wrong]
    return float(np.mean(np.maximum(q, 1 - q) >= threshold))
