"""Percentile bootstrap intervals over groups and seeds, of one model or of a paired difference.

The method is that of Efron & Tibshirani 1993, chapter 13.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from oncoshift.errors import DataError
from oncoshift.evaluation.metrics import check_predictions
from oncoshift.evaluation.resampling import Resamples, TooFewGroupsError, draw_groups, draw_seeds, resample_groups
from oncoshift.evaluation.weighted import METRIC_NAMES, MetricName, compute_weighted_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Threshold = float | NDArray[np.float64]
    """Probability from which a tile is malignant: for all models, or for each, [K]."""


@dataclass(frozen=True)
class Interval:
    """A value and its bootstrap interval.

    Attributes:
        point: the value on all groups; with several seeds, the mean over them.
        low: lower end.
        high: upper end.
        confidence: share of the resamples between the two ends, in (0, 1).
        resamples: number of resamples.
    """

    point: float
    low: float
    high: float
    confidence: float
    resamples: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.point:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def format_signed(self) -> str:
        """Format a difference, with signs."""
        return f"{self.point:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class _Contrast(NamedTuple):
    """Coefficients of a contrast of K models: of the estimate [K], and of resamples [K, R]."""

    means: NDArray[np.float64]
    shares: NDArray[np.float64]


def bootstrap_metrics(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    groups: NDArray[np.str_],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    names: Sequence[MetricName] = METRIC_NAMES,
    threshold: Threshold = 0.5,
    bins: int = 10,
) -> dict[MetricName, Interval]:
    """Compute intervals of a model's metrics, or of their mean over several seeds.

    Each resample draws groups with replacement (see `resampling`) and, with several seeds, seeds as
    well. The calibration error is biased upwards by resampling, since it cannot be negative: read
    its interval as an upper bound. The same `seed` and tiles, in any order, give the same intervals
    up to rounding.

    Args:
        labels: [N], 0 benign, 1 malignant.
        probabilities: of malignant, [N], or [K, N] with one row for each seed's model.
        groups: [N].
        resamples: number of resamples.
        confidence: of the interval, in (0, 1).
        seed: of the draws.
        names: of the metrics.
        threshold: probability from which a tile is called malignant, the same or one for each
        model.
        bins: number of bins of the calibration error.

    Returns:
        The interval of each metric, by name.

    Raises:
        DataError: shapes or values are wrong.
        TooFewGroupsError: a class has fewer than two groups, which allow no interval.
    """
    models = _check_models(labels, probabilities, groups)
    rng = np.random.default_rng(seed)
    drawn = resample_groups(labels, groups, resamples, rng)
    shares = draw_seeds(len(models), resamples, rng)
    contrast = _Contrast(np.full(len(models), 1 / len(models)), shares)
    scores = partial(
        compute_weighted_metrics, names, labels, models, thresholds=_spread(threshold, len(models)), bins=bins
    )
    return _compute_intervals(scores, drawn, contrast, confidence)


def bootstrap_differences(
    labels: NDArray[np.int64],
    probabilities_a: NDArray[np.float64],
    probabilities_b: NDArray[np.float64],
    groups: NDArray[np.str_],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    names: Sequence[MetricName] = METRIC_NAMES,
    thresholds: tuple[Threshold, Threshold] = (0.5, 0.5),
    bins: int = 10,
    same_seeds: bool = True,
) -> dict[MetricName, Interval]:
    """Compute intervals of metric(a) − metric(b), both measured on the same resampled groups.

    Args:
        labels: [N], 0 benign, 1 malignant.
        probabilities_a: [N] or [K, N], of malignant; for example the adapted models'.
        probabilities_b: [N] or [L, N], of malignant; for example the control's.
        groups: [N].
        resamples: number of resamples.
        confidence: of the interval, in (0, 1).
        seed: of the draws.
        names: of the metrics.
        thresholds: probabilities from which the models of a and of b call a tile malignant.
        bins: number of bins of the calibration error.
        same_seeds: whether row k of a and row k of b are of the same seed, where there are equally
            many; seeds are then drawn in pairs too.

    Returns:
        The interval of each difference, by name.

    Raises:
        DataError: shapes or values are wrong.
        TooFewGroupsError: a class has fewer than two groups, which allow no interval.
    """
    a, b = _check_models(labels, probabilities_a, groups), _check_models(labels, probabilities_b, groups)
    rng = np.random.default_rng(seed)
    drawn = resample_groups(labels, groups, resamples, rng)
    shares_a = draw_seeds(len(a), resamples, rng)
    shares_b = shares_a if same_seeds and len(a) == len(b) else draw_seeds(len(b), resamples, rng)
    means = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])
    contrast = _Contrast(means, np.concatenate([shares_a, -shares_b]))
    cut = np.concatenate([_spread(thresholds[0], len(a)), _spread(thresholds[1], len(b))])
    scores = partial(compute_weighted_metrics, names, labels, np.concatenate([a, b]), thresholds=cut, bins=bins)
    return _compute_intervals(scores, drawn, contrast, confidence)


def bootstrap_ratio(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    groups: NDArray[np.str_],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute the interval of Σ numerators / Σ denominators over resampled groups.

    With denominators of one it is the interval of a mean.

    Args:
        numerators: [N], finite.
        denominators: [N], finite, with a positive sum.
        groups: [N].
        resamples: number of resamples.
        confidence: of the interval, in (0, 1).
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
    filled = below > 0  # no ratio where every drawn group has denominator 0
    return _take_percentiles(float(numerators.sum() / denominators.sum()), above[filled] / below[filled], confidence)


def _check_models(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], groups: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Check probabilities and return them as [K, N]."""
    models = probabilities[None] if probabilities.ndim == 1 else probabilities
    if models.ndim != 2 or len(models) == 0:
        raise DataError(f"probabilities must be [N] or [seeds, N], got {probabilities.shape}")
    for model in models:
        check_predictions(labels, model, groups)
    return models


def _spread(threshold: Threshold, models: int) -> NDArray[np.float64]:
    """Return a threshold for each of K models, [K]."""
    return np.broadcast_to(np.asarray(threshold, np.float64), (models,))


def _compute_intervals(
    score: Callable[[NDArray[np.float64]], dict[MetricName, NDArray[np.float64]]],
    drawn: Resamples,
    contrast: _Contrast,
    confidence: float,
) -> dict[MetricName, Interval]:
    """Compute the interval of a linear contrast of K models for each metric.

    `score` turns tile weights [N, R] into each metric's values, [K, R].
    """
    points = score(np.ones((len(drawn.index), 1)))
    parts = [score(weights) for weights in drawn.tile_weights()]
    intervals = {}
    for name, values in points.items():
        resampled = (np.concatenate([part[name] for part in parts], axis=1) * contrast.shares).sum(axis=0)
        intervals[name] = _take_percentiles(float(contrast.means @ values[:, 0]), resampled, confidence)
    return intervals


def _take_percentiles(point: float, resampled: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(point, float(low), float(high), confidence, len(resampled))
