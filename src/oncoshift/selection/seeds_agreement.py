"""Agreement of models that differ in their seed alone (Jiang 2022, arXiv 2106.13799): an estimate of their accuracy.

The share of target tiles on which two runs agree equals their expected accuracy where the ensemble is calibrated. Under
shift it is not: runs whose classes are turned around the same way agree as well, and so do constant predictors.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import check_models

if TYPE_CHECKING:
    from numpy.typing import NDArray


def seeds_agreement(probabilities: NDArray[np.float64]) -> float:
    """Mean over pairs of the share of tiles with the same class.

    Args:
        probabilities: of malignant, [M, N], of M ≥ 2 seeds of one configuration on the same target tiles.

    Returns:
        0 to 1, higher is better; read as an estimate of accuracy.
    """
    classes = check_models(probabilities) > 0.5
    return float(np.mean([np.mean(one == other) for one, other in combinations(classes, 2)]))
