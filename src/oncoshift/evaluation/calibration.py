"""Calibration of predicted probabilities: reliability curve and expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Reliability:
    """Predicted and observed frequency of malignant tiles, in equally wide bins of the probability.

    Attributes:
        edges: float64 [B + 1], from 0 to 1.
        counts: int64 [B], tiles in each bin.
        predicted: float64 [B], mean probability in each bin; NaN where it is empty.
        observed: float64 [B], share of malignant tiles in each bin; NaN where it is empty.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error, in [0, 1]; see `expected_calibration_error`."""
        filled = self.counts > 0
        gaps = np.abs(self.observed[filled] - self.predicted[filled])
        return float(np.average(gaps, weights=self.counts[filled]))


def find_bins(probabilities: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Find the bin of each probability: [i / bins, (i + 1) / bins) for bin i, the last with 1."""
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def compute_reliability(labels: NDArray[np.int64], probabilities: NDArray[np.float64], bins: int) -> Reliability:
    """Bin labels [N] in {0, 1} and probabilities of malignant [N] in [0, 1]."""
    index = find_bins(probabilities, bins)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # an empty bin has no mean: 0 / 0 gives the NaN that is wanted
        predicted = np.bincount(index, weights=probabilities, minlength=bins) / counts
        observed = np.bincount(index, weights=labels, minlength=bins) / counts
    return Reliability(np.linspace(0.0, 1.0, bins + 1), counts, predicted, observed)


def expected_calibration_error(labels: NDArray[np.int64], probabilities: NDArray[np.float64], bins: int) -> float:
    """Compute the expected calibration error (ECE) of a binary classifier, in [0, 1].

    ECE = Σ_b |B_b| / N · |observed(B_b) − predicted(B_b)| (Guo 2017, eq. 3), binned over the
    probability of malignant as Naeini 2015 has it for two classes. Binning by the confidence in the
    predicted class, as is usual for many classes, would let over- and underestimated probabilities
    of malignant cancel.

    Args:
        labels: [N] in {0, 1}.
        probabilities: of malignant, [N] in [0, 1].
        bins: number of equally wide bins.
    """
    return compute_reliability(labels, probabilities, bins).error
