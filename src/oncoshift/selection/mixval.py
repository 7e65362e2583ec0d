"""MixVal: consistency of predictions on mixed target tiles.

It is that of Hu 2023, NeurIPS, "Mixed samples as probes for unsupervised model selection in domain
adaptation". Pairs of target inputs are mixed, x = λ a + (1 − λ) b with λ just above one half, and
the model's class of x is compared with its own class of a. Pairs of one predicted class probe how
dense a class is, pairs of two probe where the boundary is. The paper adds a candidate's ranks in
both; here their mean is the score, so that a model can be scored alone. With two classes a constant
predictor has no pairs of two, and scores 0 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import check_probabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def mixval(
    inputs: NDArray[np.floating],
    predict: Callable[[NDArray[np.floating]], NDArray[np.float64]],
    mix: float = 0.55,
    seed: int = 0,
) -> float:
    """Compute the mean consistency on mixes within and between predicted classes.

    Args:
        inputs: [N, D], what `predict` takes, of unlabelled target tiles; each is mixed with one
            other.
        predict: inputs [N, D] → probabilities of malignant [N].
        mix: λ, above 0.5 and below 1.
        seed: of the pairing.

    Returns:
        0 to 1, higher is better.

    Raises:
        ValueError: fewer than two inputs, or λ outside its range.
    """
    if len(inputs) < 2:
        raise ValueError(f"mixing needs at least two inputs, got {len(inputs)}")
    if not 0.5 < mix < 1:
        raise ValueError(f"mix must be above 0.5 and below 1, got {mix}")
    classes = check_probabilities(predict(inputs)) > 0.5
    other = _draw_derangement(len(inputs), np.random.default_rng(seed))
    mixed = check_probabilities(predict(mix * inputs + (1 - mix) * inputs[other])) > 0.5
    kept = mixed == classes
    within = classes == classes[other]
    return float(np.mean([kept[pairs].mean() if pairs.any() else 0.0 for pairs in (within, ~within)]))


def _draw_derangement(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a permutation of `count` numbers without fixed points, as one cycle."""
    order = rng.permutation(count)
    partner = np.empty(count, np.int64)
    partner[order] = np.roll(order, 1)
    return partner
