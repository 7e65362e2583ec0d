"""What a few labels prove of a model: the probability that its balanced accuracy exceeds a floor.

Sensitivity and specificity have independent posteriors Beta(right + ½, wrong + ½) under Jeffreys'
prior (Jeffreys 1946). Tiles count as independent, and those of a patient are not: labels should
come from as many groups as there are. The gate wants several of each class
(`registry.decision.MIN_GROUPS_PER_CLASS`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import beta

from oncoshift.data.tables import LABELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POINTS = 4000
"""Quantiles of one posterior over which the other's tail is averaged; the error is below 1e-4."""


@dataclass(frozen=True)
class LabelCounts:
    """A model's right and wrong calls of labelled tiles, by class.

    Attributes:
        right: number of benign and of malignant tiles that it calls so.
        total: number of benign and of malignant tiles.
    """

    right: tuple[int, int]
    total: tuple[int, int]

    def __str__(self) -> str:
        return ", ".join(
            f"{right} of {total} {name}" for right, total, name in zip(self.right, self.total, LABELS, strict=True)
        )


def count_calls(labels: NDArray[np.int64], malignant: NDArray[np.bool_]) -> LabelCounts:
    """Count right calls by class.

    Args:
        labels: [N] in {0, 1}.
        malignant: [N], the tiles called malignant.
    """
    of_class = [labels == label for label in (0, 1)]
    right = [int((malignant[chosen] == bool(label)).sum()) for label, chosen in enumerate(of_class)]
    return LabelCounts((right[0], right[1]), (int(of_class[0].sum()), int(of_class[1].sum())))


def compute_probability_above(floor: float, counts: LabelCounts) -> float:
    """Compute P(balanced accuracy > floor), 0 to 1, given the counts; see the module.

    It is E[P(Y > 2 · floor − X)] of the two posteriors X and Y, the mean over quantiles of X. A
    class without labels keeps its prior, which is the gate's to refuse.
    """
    (benign, malignant) = (
        beta(right + 0.5, total - right + 0.5) for right, total in zip(counts.right, counts.total, strict=True)
    )
    quantiles = malignant.ppf((np.arange(_POINTS) + 0.5) / _POINTS)
    return float(benign.sf(2 * floor - quantiles).mean())
