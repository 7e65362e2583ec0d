"""Correlation of predictions with an anchor: does the model call malignant what looks malignant?

Confidence cannot tell a good model from one whose classes alignment inverted; the anchor, a measure
of morphology that is higher in malignant tissue of every organ, can (`oncoshift.anchors`). For a
model that was trained with the anchor it says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import check_probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray


def correlate_with_anchor(probabilities: NDArray[np.float64], anchor: NDArray[np.float64]) -> float:
    """Compute Pearson's correlation of probabilities of malignant and an anchor.

    With the logit z of a probability p it equals that of tanh(z / 2) = 2 p − 1.

    Args:
        probabilities: [N], on unlabelled target tiles.
        anchor: [N], of the same tiles, higher for malignant tissue.

    Returns:
        −1 to 1; 0 where one of the two is constant.

    Raises:
        ValueError: the shapes differ, or values are not probabilities.
    """
    p = check_probabilities(probabilities)
    if p.shape != anchor.shape:
        raise ValueError(f"expected an anchor of each of {len(p)} tiles, got shape {list(anchor.shape)}")
    spreads = p.std(), anchor.std()
    if min(spreads) < 1e-12:
        return 0.0
    return float(np.mean((p - p.mean()) * (anchor - anchor.mean())) / (spreads[0] * spreads[1]))
