"""Agreement of models that differ only in the seed (Jiang 2022, arXiv 2106.13799).

The share of target tiles on which two runs agree equals their expected accuracy if the ensemble is
calibrated. Under shift it is not: runs whose classes are inverted in the same way agree as well,
and so do constant predictors.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import check_models

if TYPE_CHECKING:
    from numpy.typing import NDArray


def seeds_agreement(probabilities: NDArray[np.float64]) -> float:
    """Compute the share of tiles with the same class, as the mean over pairs of models.

    Args:
        probabilities: of malignant, [M, N], of M ≥ 2 seeds of one configuration on the same target
            tiles.

    Returns:
        0 to 1, higher is better; an estimate of accuracy.
    """
    classes = check_models(probabilities) > 0.5
    return float(np.mean([np.mean(one == other) for one, other in combinations(classes, 2)]))
