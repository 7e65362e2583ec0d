"""Percentile bootstrap intervals (Efron & Tibshirani 1993, ch. 13) over groups and seeds, alone and paired."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from oncoshift.errors import DataError
from oncoshift.evaluation.metrics import check_predictions
from oncoshift.evaluation.resampling import Resamples, TooFewGroupsError, draw_groups, draw_seeds, resample_groups
from oncoshift.evaluation.weighted import METRIC_NAMES, MetricName, compute_weighted_metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """A value and how far resampling moves it.

    Attributes:
        point: the value on all groups; with several seeds, the mean over them.
        low: lower end.
        high: upper end.
        confidence: share of the resamples between the ends, in (0, 1).
        resamples: how many resamples were drawn.
    """

    point: float
    low: float
    high: float
    confidence: float
    resamples: int

    def as_dict(self) -> dict[str, Any]:
        """Field → value, JSON-safe."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.point:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_metrics(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    groups: NDArray[np.str_],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    names: Sequence[MetricName] = METRIC_NAMES,
    threshold: float = 0.5,
    bins: int = 10,
) -> dict[MetricName, Interval]:
    """Intervals of a model's metrics, or of their mean over several seeds.

    Each resample draws groups with replacement (see `resampling`) and, where there are several seeds, seeds as well.
    The calibration error cannot be negative, so resampling pushes it up: read its interval as an upper bound.
    The same `seed` and the same tiles, in any order, give the same intervals up to rounding.

    Args:
        labels: [N], 0 benign, 1 malignant.
        probabilities: of malignant, [N], or [K, N] with one row for each seed's model.
        groups: [N].
        resamples: how many resamples.
        confidence: in (0, 1).
        seed: of the draws.
        names: which metrics.
        threshold: a tile is called malignant from this probability on.
        bins: number of bins of the calibration error.

    Returns:
        Metric name → interval.

    Raises:
        DataError: shapes or values are wrong.
        TooFewGroupsError: a class has fewer than two groups, which allow no interval.
    """
    models = _models(labels, probabilities, groups)
    rng = np.random.default_rng(seed)
    drawn = resample_groups(labels, groups, resamples, rng)
    shares = draw_seeds(len(models), resamples, rng)
    means = np.full(len(models), 1 / len(models))
    intervals = {}
    for name in names:
        score = partial(compute_weighted_metric, name, labels, models, threshold=threshold, bins=bins)
        intervals[name] = _interval(score, drawn, means, shares, confidence)
    return intervals


def bootstrap_difference(
    labels: NDArray[np.int64],
    probabilities_a: NDArray[np.float64],
    probabilities_b: NDArray[np.float64],
    groups: NDArray[np.str_],
    metric: MetricName,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    threshold: float = 0.5,
    bins: int = 10,
) -> Interval:
    """Interval of metric(a) − metric(b), both measured on the same resampled groups.

    Where a and b have as many rows, row k of both must be the same training seed: seeds are then drawn together too.

    Args:
        labels: [N], 0 benign, 1 malignant.
        probabilities_a: [N] or [K, N], of malignant; for example the adapted models'.
        probabilities_b: [N] or [L, N], of malignant; for example the control's.
        groups: [N].
        metric: which metric.
        resamples: how many resamples.
        confidence: in (0, 1).
        seed: of the draws.
        threshold: a tile is called malignant from this probability on.
        bins: number of bins of the calibration error.

    Raises:
        DataError: shapes or values are wrong.
        TooFewGroupsError: a class has fewer than two groups, which allow no interval.
    """
    a, b = _models(labels, probabilities_a, groups), _models(labels, probabilities_b, groups)
    rng = np.random.default_rng(seed)
    drawn = resample_groups(labels, groups, resamples, rng)
    shares_a = draw_seeds(len(a), resamples, rng)
    shares_b = shares_a if len(a) == len(b) else draw_seeds(len(b), resamples, rng)
    models, shares = np.concatenate([a, b]), np.concatenate([shares_a, -shares_b])
    means = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])
    score = partial(compute_weighted_metric, metric, labels, models, threshold=threshold, bins=bins)
    return _interval(score, drawn, means, shares, confidence)


def bootstrap_ratio(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    groups: NDArray[np.str_],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of Σ numerators / Σ denominators over resampled groups; denominators of one make it a mean.

    Args:
        numerators: [N], finite.
        denominators: [N], finite, positive in sum.
        groups: [N].
        resamples: how many resamples.
        confidence: in (0, 1).
        seed: of the draws.

    Raises:
        DataError: shapes differ, or the denominators sum to zero.
        TooFewGroupsError: there are fewer than two groups.
    """
    if not numerators.shape == denominators.shape == groups.shape or numerators.ndim != 1:
        shapes = f"{numerators.shape}, {denominators.shape}, {groups.shape}"
        raise DataError(f"numerators, denominators and groups must all be [N], got {shapes}")
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise TooFewGroupsError("no interval: all values come from one group; add patients, slides or originals")
    if denominators.sum() <= 0:
        raise DataError(f"no ratio: the denominators sum to {denominators.sum()}")
    drawn = draw_groups(np.zeros(len(names), dtype=np.int64), resamples, np.random.default_rng(seed))
    above = np.bincount(index, weights=numerators) @ drawn
    below = np.bincount(index, weights=denominators) @ drawn
    filled = below > 0  # a resample of groups that all have a zero denominator has no ratio
    return _percentiles(float(numerators.sum() / denominators.sum()), above[filled] / below[filled], confidence)


def _models(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], groups: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Checked probabilities as [K, N]."""
    models = probabilities[None] if probabilities.ndim == 1 else probabilities
    if models.ndim != 2 or len(models) == 0:
        raise DataError(f"probabilities must be [N] or [seeds, N], got {probabilities.shape}")
    for model in models:
        check_predictions(labels, model, groups)
    return models


def _interval(
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    drawn: Resamples,
    means: NDArray[np.float64],
    shares: NDArray[np.float64],
    confidence: float,
) -> Interval:
    """Interval of a linear contrast of K models: `means` [K] make the point, `shares` [K, R] each resample's value.

    `score` turns tile weights [N, R] into a metric's values [K, R].
    """
    point = means @ score(np.ones((len(drawn.index), 1)))[:, 0]
    resampled = np.concatenate([score(weights) for weights in drawn.tile_weights()], axis=1)
    return _percentiles(float(point), (resampled * shares).sum(axis=0), confidence)


def _percentiles(point: float, resampled: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(point, float(low), float(high), confidence, len(resampled))
