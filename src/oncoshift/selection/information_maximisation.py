"""Information maximisation (IM): high for predictions that are confident and diverse.

The mutual information between tile and prediction, H(mean p) − mean H(p) (Bridle 1991; as a
validator Musgrave 2022, arXiv 2208.07360). It cannot detect classes that alignment has inverted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import entropy_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray


def information_maximisation(probabilities: NDArray[np.float64]) -> float:
    """Compute IM of binary predictions in bits.

    Args:
        probabilities: of malignant, [N], on unlabelled target tiles.

    Returns:
        0 (constant or undecided) to 1 (certain, both classes equally often); higher is better.
    """
    return float(entropy_bits(np.mean(probabilities)) - np.mean(entropy_bits(probabilities)))
