"""Figures of evaluation: ROC, reliability and confusion by organ, and a comparison of models.

Figures are made without pyplot, so they need no display and leave no global state. Colours are
those of Okabe & Ito (2008), which people with colour vision deficiency can tell apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from oncoshift.data.tables import LABELS
from oncoshift.errors import DataError
from oncoshift.evaluation.calibration import compute_reliability
from oncoshift.evaluation.domains import OrganPredictions, Report, split_by_organ
from oncoshift.evaluation.metrics import compute_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from oncoshift.evaluation.weighted import MetricName

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_GUIDE: dict[str, Any] = {"color": "0.55", "linewidth": 1.0, "linestyle": "--", "zorder": 1}
_PANEL_INCHES = 3.3
_CHANCE: dict[str, float] = {"balanced_accuracy": 0.5, "auroc": 0.5}
"""Values of a random classifier, for metrics that do not depend on the prevalence."""


def draw_roc_figure(predictions: pd.DataFrame) -> Figure:
    """Draw the ROC curve of each organ: thin lines are seeds, the thick one their mean.

    The mean is that of the sensitivity at each false positive rate.

    Args:
        predictions: with the columns `oncoshift.evaluation.domains.PREDICTION_COLUMNS`.

    Returns:
        A figure with one panel per organ; a panel states if a class is absent.
    """
    organs = split_by_organ(predictions)
    figure, row = _create_panels(len(organs), _PANEL_INCHES + 0.9)
    for axes, tiles in zip(row, organs, strict=True):
        _set_title(axes, tiles)
        axes.plot([0, 1], [0, 1], **_GUIDE)
        if len(np.unique(tiles.labels)) == 2:
            _draw_roc(axes, tiles)
        else:
            axes.text(0.5, 0.6, "only one class: no curve", ha="center", color="0.35")
        _set_unit_square(axes)
        axes.set_xlabel("false positive rate (1 − specificity)")
    row[0].set_ylabel("sensitivity")
    return figure


def draw_reliability_figure(predictions: pd.DataFrame, bins: int = 10) -> Figure:
    """Draw observed against predicted frequency of malignant tiles, above the tiles in each bin.

    Seeds are pooled.

    Args:
        predictions: with the columns `oncoshift.evaluation.domains.PREDICTION_COLUMNS`.
        bins: number of equally wide bins of the predicted probability.
    """
    organs = split_by_organ(predictions)
    figure = Figure(figsize=(max(_PANEL_INCHES * len(organs), 4.0), 5.2), layout="constrained")
    grid = figure.subplots(2, len(organs), squeeze=False, sharex=True, height_ratios=(3, 1))
    for upper, lower, tiles in zip(grid[0], grid[1], organs, strict=True):
        _set_title(upper, tiles)
        _draw_reliability(upper, lower, tiles, bins)
        lower.set_xlabel("predicted probability of malignant")
    grid[0, 0].set_ylabel("observed share of malignant")
    grid[1, 0].set_ylabel("tiles")
    return figure


def draw_confusion_figure(predictions: pd.DataFrame) -> Figure:
    """Draw the confusion matrix of each organ: share of the true class, and tiles.

    Both are means over seeds.

    Args:
        predictions: with the columns `oncoshift.evaluation.domains.PREDICTION_COLUMNS`.
    """
    organs = split_by_organ(predictions)
    figure, row = _create_panels(len(organs), _PANEL_INCHES + 0.5)
    for axes, tiles in zip(row, organs, strict=True):
        _set_title(axes, tiles)
        _draw_confusion(axes, _compute_mean_confusion(tiles))
        axes.set_xlabel("called")
    row[0].set_ylabel("true")
    return figure


def draw_comparison_figure(reports: Mapping[str, Report], metric: MetricName = "balanced_accuracy") -> Figure:
    """Draw a metric of several models on each organ, with intervals.

    A dot is the mean over seeds, whiskers its interval. Whiskers of two models may overlap although
    their paired difference is clear: for that, see `bootstrap_differences`.

    Args:
        reports: name of a model, as in the legend, → its report; at most six, drawn in this order
            from the top.
        metric: name of the metric.

    Raises:
        DataError: there is no report, or more than there are colours.
    """
    if not 1 <= len(reports) <= len(OKABE_ITO):
        raise DataError(f"a comparison takes 1 to {len(OKABE_ITO)} reports, got {len(reports)}")
    sizes = {organ.organ: next(iter(organ.per_seed.values())) for report in reports.values() for organ in report.organs}
    places = {organ: place for place, organ in enumerate(sizes)}
    figure = Figure(figsize=(7.0, 1.1 + (0.35 + 0.27 * len(reports)) * len(places)), layout="constrained")
    axes = figure.subplots()
    for number, (name, report) in enumerate(reports.items()):
        offset = (number - (len(reports) - 1) / 2) * 0.22
        _draw_whiskers(axes, report, metric, name, OKABE_ITO[number], {o: p + offset for o, p in places.items()})
    if metric in _CHANCE:
        axes.axvline(_CHANCE[metric], **_GUIDE)
    axes.set_yticks(list(places.values()), [f"{o}\n{sizes[o].tiles:,} tiles, {sizes[o].groups} groups" for o in places])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"{metric.replace('_', ' ')}{_format_interval_caption(reports, metric)}")
    axes.grid(axis="x", color="0.9")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=len(reports), frameon=False)
    return figure


def _create_panels(count: int, height: float) -> tuple[Figure, NDArray[np.object_]]:
    """Create a figure with `count` panels side by side."""
    figure = Figure(figsize=(max(_PANEL_INCHES * count, 4.0), height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _set_title(axes: Axes, tiles: OrganPredictions) -> None:
    seeds = f", {len(tiles.seeds)} seeds" if len(tiles.seeds) > 1 else ""
    counts = f"{len(tiles.labels):,} tiles, {len(np.unique(tiles.groups))} groups{seeds}"
    axes.set_title(tiles.organ, fontsize=11, fontweight="bold", pad=19)
    axes.text(0.5, 1.03, counts, transform=axes.transAxes, ha="center", va="bottom", fontsize=9)


def _set_unit_square(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_roc(axes: Axes, tiles: OrganPredictions) -> None:
    rates = np.linspace(0.0, 1.0, 201)
    curves = [roc_curve(tiles.labels, row)[:2] for row in tiles.probabilities]
    if len(curves) > 1:
        for false_positive, true_positive in curves:
            axes.plot(false_positive, true_positive, color=OKABE_ITO[0], alpha=0.4, linewidth=0.9)
        mean = np.mean([np.interp(rates, *curve) for curve in curves], axis=0)
        axes.plot(np.r_[0.0, rates], np.r_[0.0, mean], color=OKABE_ITO[0], linewidth=2.2)
    else:
        axes.plot(*curves[0], color=OKABE_ITO[0], linewidth=2.2)
    areas = [roc_auc_score(tiles.labels, row) for row in tiles.probabilities]
    spread = f"\n[{min(areas):.3f}–{max(areas):.3f}] by seed" if len(areas) > 1 else ""
    axes.text(0.98, 0.04, f"AUROC {np.mean(areas):.3f}{spread}", ha="right", va="bottom", fontsize=9)


def _draw_reliability(upper: Axes, lower: Axes, tiles: OrganPredictions, bins: int) -> None:
    labels = np.tile(tiles.labels, len(tiles.seeds))
    curve = compute_reliability(labels, tiles.probabilities.ravel(), bins)
    error = np.mean([compute_reliability(tiles.labels, row, bins).error for row in tiles.probabilities])
    filled = curve.counts > 0
    predicted, observed = curve.predicted[filled], curve.observed[filled]
    upper.plot([0, 1], [0, 1], **_GUIDE)
    upper.vlines(predicted, predicted, observed, color=OKABE_ITO[1], linewidth=3, alpha=0.35)
    upper.plot(predicted, observed, color=OKABE_ITO[0], marker="o", markersize=5, linewidth=1.5)
    upper.text(0.03, 0.97, f"ECE {error:.3f}", va="top", fontsize=9)
    _set_unit_square(upper)
    counts = curve.counts / len(tiles.seeds)
    lower.bar(curve.edges[:-1], counts, width=1 / bins, align="edge", color="0.75", edgecolor="white")
    for left, count in zip(curve.edges[:-1], counts, strict=True):
        if count:
            lower.text(left + 0.5 / bins, count, f"{count:,.0f}", ha="center", va="bottom", fontsize=6.5)
    lower.set_ylim(0, counts.max() * 1.25)
    lower.spines[["top", "right"]].set_visible(False)


def _compute_mean_confusion(tiles: OrganPredictions) -> NDArray[np.float64]:
    """Count tiles by true (rows) and predicted (columns) class, as the mean over seeds, [2, 2]."""
    models = zip(tiles.probabilities, tiles.thresholds, strict=True)
    every = [compute_metrics(tiles.labels, row, tiles.groups, threshold) for row, threshold in models]
    return np.asarray(np.mean([[[one.tn, one.fp], [one.fn, one.tp]] for one in every], axis=0))


def _draw_confusion(axes: Axes, counts: NDArray[np.float64]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (true, called), share in np.ndenumerate(shares):
        count = counts[true, called]
        number = f"{count:,.0f}" if float(count).is_integer() else f"{count:,.1f}"
        colour = "white" if share > 0.55 else "black"
        axes.text(called, true, f"{share:.1%}\n{number}", ha="center", va="center", color=colour, fontsize=11)
    axes.set_xticks((0, 1), LABELS)
    axes.set_yticks((0, 1), LABELS, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _format_interval_caption(reports: Mapping[str, Report], metric: MetricName) -> str:
    """Describe the whiskers; empty if there are none."""
    for report in reports.values():
        for organ in report.organs:
            if metric in organ.intervals:
                return f", {organ.intervals[metric].confidence:.0%} bootstrap interval over groups and seeds"
    return ""


def _draw_whiskers(
    axes: Axes, report: Report, metric: MetricName, name: str, colour: str, places: dict[str, float]
) -> None:
    label: str | None = name
    for organ in report.organs:
        value, place = organ.mean(metric), places[organ.organ]
        if value is None:
            continue
        if metric in organ.intervals:
            interval = organ.intervals[metric]
            axes.hlines(place, interval.low, interval.high, color=colour, linewidth=2)
            axes.vlines((interval.low, interval.high), place - 0.05, place + 0.05, color=colour, linewidth=2)
        axes.plot(value, place, "o", color=colour, markersize=8, markeredgecolor="white", label=label)
        label = None
