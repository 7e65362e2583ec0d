"""Metrics under many sets of tile weights at once, so that thousands of resamples take seconds.

A resample that draws a group twice gives each of its tiles the weight 2. A metric of K models
(seeds) on R resamples is then a few products of [K, N] by [N, R] matrices. Each value equals
scikit-learn's with `sample_weight`.
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
    """Compute one metric for every model and every set of weights.

    Args:
        name: of the metric.
        labels: [N] in {0, 1}.
        probabilities: of malignant, [K, N] in [0, 1].
        weights: [N, R], not negative; the value is NaN for a column in which a class has no weight.
        threshold: probability from which a tile is called malignant.
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
            return np.stack([_compute_auroc(labels, model, weights) for model in probabilities])
        case "ece":
            return np.stack([_compute_ece(labels, model, weights, bins) for model in probabilities])


def _compute_share(hits: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the share of hits [K, n] under weights [n, R]: [K, R]."""
    with np.errstate(invalid="ignore"):  # no weight at all: 0 / 0 gives the NaN that is wanted
        return np.asarray((hits.astype(np.float64) @ weights) / weights.sum(axis=0))


def _compute_auroc(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the Mann–Whitney statistic of one model [N] under weights [N, R]: [R].

    It is P(malignant scores above benign), where a tie counts half. Benign tiles are sorted once;
    the weight below, and that not above, each malignant tile's score is then a running sum.
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


def _compute_ece(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], weights: NDArray[np.float64], bins: int
) -> NDArray[np.float64]:
    """Compute the calibration error of one model [N] under weights [N, R]: [R].

    In a bin, weight × gap is |Σ w (label − probability)|.
    """
    members = np.arange(bins)[:, None] == find_bins(probabilities, bins)
    gaps = (members * (labels - probabilities)) @ weights
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(gaps).sum(axis=0) / weights.sum(axis=0))
