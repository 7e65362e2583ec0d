"""Metrics under many sets of tile weights at once: what makes a bootstrap of thousands of resamples quick.

A resample that draws a group twice gives each of its tiles the weight 2. So a metric of K models (seeds) on R resamples
is a few products of [K, N] by [N, R] matrices. Each value equals scikit-learn's with `sample_weight`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from oncoshift.evaluation.calibration import find_bins

if TYPE_CHECKING:
    from numpy.typing import NDArray

MetricName = Literal["balanced_accuracy", "accuracy", "auroc", "sensitivity", "specificity", "ece"]
METRIC_NAMES: tuple[MetricName, ...] = (
    "balanced_accuracy",
    "accuracy",
    "auroc",
    "sensitivity",
    "specificity",
    "ece",
)


def compute_weighted_metric(
    name: MetricName,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    threshold: float,
    bins: int,
) -> NDArray[np.float64]:
    """One metric for every model and every set of weights.

    Args:
        name: which metric.
        labels: [N] in {0, 1}.
        probabilities: of malignant, [K, N] in [0, 1].
        weights: [N, R], not negative; both classes must have weight in each column, else the value is NaN.
        threshold: a tile is called malignant from this probability on.
        bins: number of bins of the calibration error.

    Returns:
        [K, R].
    """
    called = probabilities >= threshold
    match name:
        case "accuracy":
            return _compute_share(called == labels, weights)
        case "sensitivity":
            return _compute_share(called[:, labels == 1], weights[labels == 1])
        case "specificity":
            return _compute_share(~called[:, labels == 0], weights[labels == 0])
        case "balanced_accuracy":
            malignant, benign = labels == 1, labels == 0
            return (
                _compute_share(called[:, malignant], weights[malignant])
                + _compute_share(~called[:, benign], weights[benign])
            ) / 2
        case "auroc":
            return np.stack([_auroc(labels, model, weights) for model in probabilities])
        case "ece":
            return np.stack([_ece(labels, model, weights, bins) for model in probabilities])


def _compute_share(hits: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted share of hits [K, n] under weights [n, R] → [K, R]."""
    with np.errstate(invalid="ignore"):  # no weight at all: 0 / 0 is the NaN that is wanted
        return np.asarray((hits.astype(np.float64) @ weights) / weights.sum(axis=0))


def _auroc(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted Mann–Whitney statistic of one model [N] → [R]: P(malignant scores above benign), a tie counts half.

    The benign tiles are sorted once; the weight below and not above each malignant tile's score is then a running sum.
    """
    malignant, benign = labels == 1, labels == 0
    order = np.argsort(probabilities[benign])
    scores = probabilities[benign][order]
    running = np.zeros((len(scores) + 1, weights.shape[1]))
    np.cumsum(weights[benign][order], axis=0, out=running[1:])
    below = running[np.searchsorted(scores, probabilities[malignant], side="left")]
    not_above = running[np.searchsorted(scores, probabilities[malignant], side="right")]
    wins = np.einsum("nr,nr->r", weights[malignant], below + not_above) / 2
    with np.errstate(invalid="ignore"):
        return np.asarray(wins / (weights[malignant].sum(axis=0) * running[-1]))


def _ece(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], weights: NDArray[np.float64], bins: int
) -> NDArray[np.float64]:
    """Weighted calibration error of one model [N] → [R]: in a bin, weight × gap is |Σ w (label − probability)|."""
    members = np.arange(bins)[:, None] == find_bins(probabilities, bins)
    gaps = (members * (labels - probabilities)) @ weights
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(gaps).sum(axis=0) / weights.sum(axis=0))
