"""Metrics under many sets of tile weights at once, so that thousands of resamples take seconds.

A resample that draws a group twice gives each of its tiles the weight 2. The metrics of K models
(seeds) on R resamples are then matrix products and running sums of [N, R] weights. Each value
equals scikit-learn's with `sample_weight`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from oncoshift.evaluation.calibration import find_bins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MetricName = Literal[
    "balanced_accuracy",
    "accuracy",
    "auroc",
    "auprc",
    "sensitivity",
    "specificity",
    "f1",
    "mcc",
    "brier",
    "ece",
]
METRIC_NAMES: tuple[MetricName, ...] = get_args(MetricName)
TITLES: dict[MetricName, str] = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "mcc": "MCC",
    "brier": "Brier score",
    "ece": "ECE",
}
"""The metrics as tables and figures name them."""


class _Counts(NamedTuple):
    """Weights by true and predicted class: `tp`, `fp` [K, R]; `positive`, `negative` [R]."""

    tp: NDArray[np.float64]
    fp: NDArray[np.float64]
    positive: NDArray[np.float64]
    negative: NDArray[np.float64]


class _Ranking(NamedTuple):
    """Areas under the ROC and the precision–recall curve, each [K, R]."""

    auroc: NDArray[np.float64]
    auprc: NDArray[np.float64]


def compute_weighted_metrics(
    names: Sequence[MetricName],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    thresholds: NDArray[np.float64],
    bins: int,
) -> dict[MetricName, NDArray[np.float64]]:
    """Compute metrics for every model and every set of weights.

    Args:
        names: of the metrics.
        labels: [N] in {0, 1}.
        probabilities: of malignant, [K, N] in [0, 1].
        weights: [N, R], not negative; a value is NaN where it needs a class that has no weight.
        thresholds: [K], probability from which each model calls a tile malignant.
        bins: number of bins of the calibration error.

    Returns:
        Values by name, each [K, R].
    """
    values: dict[MetricName, NDArray[np.float64]] = {}
    ranked = {"auroc", "auprc"} & set(names)
    with np.errstate(invalid="ignore"):  # no weight at all: 0 / 0 gives the NaN that is wanted
        counts = _count(labels, probabilities >= thresholds[:, None], weights)
        ranking = _rank(labels, probabilities, weights) if ranked else None
        for name in names:
            if name in ("auroc", "auprc"):
                values[name] = getattr(ranking, name)
            elif name == "brier":
                values[name] = ((probabilities - labels) ** 2 @ weights) / weights.sum(axis=0)
            elif name == "ece":
                values[name] = np.stack([_compute_ece(labels, model, weights, bins) for model in probabilities])
            else:
                values[name] = _compute_from_counts(name, counts)
    return values


def _count(labels: NDArray[np.int64], called: NDArray[np.bool_], weights: NDArray[np.float64]) -> _Counts:
    """Sum weights [N, R] by true class and by the classes that models predict, [K, N]."""
    malignant = labels == 1
    return _Counts(
        (called & malignant).astype(np.float64) @ weights,
        (called & ~malignant).astype(np.float64) @ weights,
        malignant.astype(np.float64) @ weights,
        (~malignant).astype(np.float64) @ weights,
    )


def _compute_from_counts(name: MetricName, counts: _Counts) -> NDArray[np.float64]:
    """Compute a metric of the predicted classes, [K, R]."""
    tp, fp, positive, negative = counts
    fn, tn = positive - tp, negative - fp
    match name:
        case "accuracy":
            return (tp + tn) / (positive + negative)
        case "sensitivity":
            return tp / positive
        case "specificity":
            return tn / negative
        case "balanced_accuracy":
            return (tp / positive + tn / negative) / 2
        case "f1":
            return np.where(positive > 0, 2 * tp / (tp + fp + positive), np.nan)
        case "mcc":
            covariance, spread = tp * tn - fp * fn, (tp + fp) * positive * negative * (tn + fn)
            # As scikit-learn has it, a constant prediction has no correlation: 0.
            constant = np.where((positive > 0) & (negative > 0), 0.0, np.nan)
            return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1.0)), constant)
    raise ValueError(f"{name} is not a metric of predicted classes")


def _rank(labels: NDArray[np.int64], probabilities: NDArray[np.float64], weights: NDArray[np.float64]) -> _Ranking:
    areas = [_compute_areas(labels, model, weights) for model in probabilities]
    return _Ranking(np.stack([roc for roc, _ in areas]), np.stack([pr for _, pr in areas]))


def _compute_areas(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the areas under ROC and precision–recall curve of one model [N], each [R].

    Tiles are sorted by descending score; tiles of equal score are one point of the curves. With the
    weight m of a point's malignant tiles, f of benign tiles up to it and t of all tiles up to it,
    AUROC = Σ m (F − (f_before + f) / 2) / (M F), where a tie counts half, and average precision is
    Σ m (t − f) / t / M.
    """
    order = np.argsort(-probabilities, kind="stable")
    scores, malignant = probabilities[order], labels[order] == 1
    ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])
    held = np.add.reduceat(malignant, np.r_[0, ends[:-1] + 1]) > 0  # points with malignant tiles
    after, before = (ends + 1)[held], np.r_[0, ends + 1][:-1][held]
    # [R, N], so that running sums go along memory; `take` is several times as fast as an index.
    rows = weights.T.take(order, axis=1)
    seen: NDArray[np.float64] = np.zeros((len(rows), len(order) + 1))
    np.cumsum(rows, axis=1, out=seen[:, 1:])
    upto = np.cumsum(malignant)[ends[held]]  # malignant tiles up to each point
    hits: NDArray[np.float64] = np.zeros((len(rows), int(malignant.sum()) + 1))
    np.cumsum(rows.take(np.flatnonzero(malignant), axis=1), axis=1, out=hits[:, 1:])
    positive = hits[:, -1]
    negative = seen[:, -1] - positive
    at_points = np.asarray(hits.take(np.r_[0, upto], axis=1))
    mass, true = np.diff(at_points, axis=1), at_points[:, 1:]
    total = seen.take(after, axis=1)
    false = (total + seen.take(before, axis=1) + mass) / 2 - true  # mean of before and up to a point
    wins = negative * positive - np.einsum("rp,rp->r", mass, false)
    np.maximum(total, np.finfo(float).tiny, out=total)  # no weight yet, so no mass either
    precise = np.einsum("rp,rp->r", mass, true / total)
    return wins / (positive * negative), precise / positive


def _compute_ece(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], weights: NDArray[np.float64], bins: int
) -> NDArray[np.float64]:
    """Compute the calibration error of one model [N] under weights [N, R]: [R].

    In a bin, weight × gap is |Σ w (label − probability)|.
    """
    members = np.arange(bins)[:, None] == find_bins(probabilities, bins)
    gaps = (members * (labels - probabilities)) @ weights
    return np.asarray(np.abs(gaps).sum(axis=0) / weights.sum(axis=0))
