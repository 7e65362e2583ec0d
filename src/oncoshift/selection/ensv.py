"""EnsV (Hu 2024, NeurIPS Datasets and Benchmarks): agreement with the candidates' ensemble.

The reference is the mean softmax of all candidates; a candidate's score is its accuracy against the
reference's classes. It provably does not pick the worst candidate, but is misled where most
candidates make the same errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import check_models

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ensemble_agreement(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute EnsV of every candidate.

    Args:
        probabilities: of malignant, [M, N], of M ≥ 2 candidates on the same unlabelled target
            tiles.

    Returns:
        float64 [M], each 0 to 1; higher is better.
    """
    p = check_models(probabilities)
    reference = p.mean(axis=0) > 0.5
    return np.asarray(((p > 0.5) == reference).mean(axis=1))
