"""Metrics with intervals for each organ, as values, a table, Markdown and JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from oncoshift.errors import DataError
from oncoshift.evaluation.intervals import Interval, bootstrap_metrics
from oncoshift.evaluation.metrics import Metrics, compute_metrics
from oncoshift.evaluation.resampling import TooFewGroupsError
from oncoshift.evaluation.weighted import METRIC_NAMES, TITLES, MetricName
from oncoshift.markdown import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from oncoshift.settings import EvaluateSettings

PREDICTION_COLUMNS = ("tile_id", "organ", "group", "label", "probability", "seed")
"""Columns of a table with one row per tile and seed: label 0 or 1, probability of malignant.

A column `threshold` may say from which probability each seed's model calls a tile malignant;
without it that is `DEFAULT_THRESHOLD`.
"""

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class OrganPredictions:
    """Predictions of the models of K seeds for the N tiles of one organ.

    Attributes:
        organ: its name.
        seeds: the K seeds, ascending.
        labels: int64 [N].
        groups: str [N].
        probabilities: of malignant, float64 [K, N].
        thresholds: float64 [K], probability from which each seed's model calls a tile malignant.
    """

    organ: str
    seeds: tuple[int, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    probabilities: NDArray[np.float64]
    thresholds: NDArray[np.float64]


@dataclass(frozen=True)
class OrganResult:
    """Metrics of the models of K seeds on one organ.

    Attributes:
        organ: its name.
        per_seed: seed → metrics.
        intervals: interval of the mean over seeds by metric; empty if there is none, for the reason
            in `note`.
        seed_intervals: function from a seed to the intervals of its model alone, computed at the
            first call.
        note: why there are no intervals; empty if there are.
    """

    organ: str
    per_seed: dict[int, Metrics]
    intervals: dict[MetricName, Interval]
    seed_intervals: Callable[[int], Mapping[MetricName, Interval]]
    note: str

    def mean(self, name: str) -> float | None:
        """Return the mean of a field of `Metrics` over seeds; None if it is undefined here."""
        values = [getattr(metrics, name) for metrics in self.per_seed.values()]
        return None if None in values else float(np.mean(values))

    def in_words(self, name: MetricName, seed: int | None = None) -> str:
        """Format a metric of one seed, or its mean over seeds, with its interval if known."""
        intervals = self.intervals if seed is None else self.seed_intervals(seed)
        if name in intervals:
            return str(intervals[name])
        value = self.mean(name) if seed is None else getattr(self.per_seed[seed], name)
        return "–" if value is None else f"{value:.3f}"


@dataclass(frozen=True)
class Report:
    """Metrics of one method on every organ.

    Attributes:
        organs: one result per organ, in alphabetical order.
        unit: tile, or group where groups were aggregated.
    """

    organs: tuple[OrganResult, ...]
    unit: str = "tile"

    def organ(self, name: str) -> OrganResult:
        """Return the result of one organ; KeyError if it was not evaluated."""
        return {result.organ: result for result in self.organs}[name]

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row per organ: counts, then each metric with its interval.

        The columns of a metric are its name, `<name>_low` and `<name>_high`, NaN where there is no
        value. Values and confusion counts are means over seeds.
        """
        return pd.DataFrame([_to_row(result) for result in self.organs])

    def to_markdown(self) -> str:
        """Format the metrics with their intervals as Markdown: a column per organ, then notes."""
        rows = [["metric", *(result.organ for result in self.organs)]]
        rows += [["---"] * len(rows[0])]
        sizes = [next(iter(result.per_seed.values())) for result in self.organs]
        if self.unit == "tile":
            rows += [["tiles (groups)", *(f"{size.tiles:,} ({size.groups})" for size in sizes)]]
        else:
            rows += [[f"{self.unit}s", *(f"{size.tiles:,}" for size in sizes)]]
        rows += [["seeds", *(str(len(result.per_seed)) for result in self.organs)]]
        for name in METRIC_NAMES:
            rows += [[TITLES[name], *(result.in_words(name) for result in self.organs)]]
        notes = [escape(f"{result.organ}: {result.note}") for result in self.organs if result.note]
        return "\n".join([*map(_format_markdown_row, rows), *(["", *notes] if notes else [])])

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: organ → {intervals: {metric: {…}}, seeds: {seed: metrics}, note}."""
        return {
            result.organ: {
                "intervals": {name: interval.as_dict() for name, interval in result.intervals.items()},
                "seeds": {str(seed): metrics.as_dict() for seed, metrics in result.per_seed.items()},
                "note": result.note,
            }
            for result in self.organs
        }


def evaluate_domains(predictions: pd.DataFrame, settings: EvaluateSettings, seed: int = 0) -> Report:
    """Compute metrics and intervals for each organ in a table of predictions.

    An organ with too few groups for an interval keeps its metrics and gets a note.

    Args:
        predictions: with the columns `PREDICTION_COLUMNS`.
        settings: resamples, confidence and calibration bins.
        seed: of the bootstrap.

    Raises:
        DataError: columns are missing, the seeds of an organ do not cover the same tiles, or values
            are out of range.
    """
    return Report(tuple(_evaluate(organ, settings, seed) for organ in split_by_organ(predictions)))


def aggregate_groups(predictions: pd.DataFrame) -> pd.DataFrame:
    """Aggregate tiles to groups: one row per group, label and seed, with the mean probability.

    A group with tiles of both labels gives two rows, so that each row has a true label. The result
    has the same columns, with the group and label as `tile_id`.

    Args:
        predictions: with the columns `PREDICTION_COLUMNS`.
    """
    columns = ["organ", "group", "label", "seed"]
    table = predictions.assign(threshold=predictions.get("threshold", DEFAULT_THRESHOLD))
    means = table.groupby(columns, as_index=False)[["probability", "threshold"]].mean()
    return means.assign(tile_id=means["group"].astype(str) + "/" + means["label"].astype(str))


def evaluate_groups(predictions: pd.DataFrame, settings: EvaluateSettings, seed: int = 0) -> Report:
    """Compute metrics and intervals of groups, as `evaluate_domains` does of tiles."""
    report = evaluate_domains(aggregate_groups(predictions), settings, seed)
    return replace(report, unit="group")


def split_by_organ(predictions: pd.DataFrame) -> list[OrganPredictions]:
    """Split a table of predictions into arrays, organ by organ in alphabetical order, tiles by id.

    Args:
        predictions: with the columns `PREDICTION_COLUMNS`.

    Raises:
        DataError: columns are missing, there are no rows, or an organ's seeds do not cover the same
            tiles once each.
    """
    missing = [column for column in PREDICTION_COLUMNS if column not in predictions.columns]
    if missing:
        raise DataError(f"predictions lack the column(s) {', '.join(missing)}; found {list(predictions.columns)}")
    if predictions.empty:
        raise DataError("no predictions: the split or the filter before this step left no tiles")
    return [_to_predictions(str(organ), rows) for organ, rows in predictions.groupby("organ", sort=True)]


def _to_predictions(organ: str, rows: pd.DataFrame) -> OrganPredictions:
    tiles = rows.drop_duplicates("tile_id").sort_values("tile_id")
    counts = rows.groupby("seed")["tile_id"].agg(["size", "nunique"])
    if not (counts == len(tiles)).to_numpy().all():
        raise DataError(
            f"{organ}: every seed must predict the same {len(tiles)} tiles once each, found rows by seed "
            f"{counts['size'].to_dict()}; evaluate all seeds on one split"
        )
    seeds = rows.assign(threshold=rows.get("threshold", DEFAULT_THRESHOLD)).groupby("seed")["threshold"]
    table = rows.pivot(index="seed", columns="tile_id", values="probability").sort_index()
    return OrganPredictions(
        organ=organ,
        seeds=tuple(int(value) for value in table.index),
        labels=tiles["label"].to_numpy(dtype=np.int64),
        groups=tiles["group"].to_numpy(dtype=np.str_),
        probabilities=table[tiles["tile_id"]].to_numpy(dtype=np.float64),
        thresholds=seeds.first().sort_index().to_numpy(dtype=np.float64),
    )


def _evaluate(tiles: OrganPredictions, settings: EvaluateSettings, seed: int) -> OrganResult:
    bins = settings.calibration_bins
    per_seed = {
        number: compute_metrics(tiles.labels, row, tiles.groups, threshold, bins)
        for number, row, threshold in zip(tiles.seeds, tiles.probabilities, tiles.thresholds, strict=True)
    }

    def bootstrap(seeds: slice) -> dict[MetricName, Interval]:
        return bootstrap_metrics(
            tiles.labels,
            tiles.probabilities[seeds],
            tiles.groups,
            resamples=settings.bootstrap,
            confidence=settings.confidence,
            seed=seed,
            threshold=tiles.thresholds[seeds],
            bins=bins,
        )

    try:
        intervals = bootstrap(slice(None))
    except TooFewGroupsError as error:
        return OrganResult(tiles.organ, per_seed, {}, lambda _: {}, str(error))

    @cache
    def bootstrap_seed(number: int) -> dict[MetricName, Interval]:
        place = tiles.seeds.index(number)
        return bootstrap(slice(place, place + 1))

    return OrganResult(tiles.organ, per_seed, intervals, bootstrap_seed, "")


def _to_row(result: OrganResult) -> dict[str, Any]:
    size = next(iter(result.per_seed.values()))
    row: dict[str, Any] = {
        "organ": result.organ,
        "seeds": len(result.per_seed),
        "tiles": size.tiles,
        "groups": size.groups,
        "prevalence": size.prevalence,
    }
    for name in METRIC_NAMES:
        interval = result.intervals.get(name)
        value = result.mean(name)
        row[name] = np.nan if value is None else value
        row[f"{name}_low"] = interval.low if interval else np.nan
        row[f"{name}_high"] = interval.high if interval else np.nan
    return row | {name: result.mean(name) for name in ("tn", "fp", "fn", "tp")}


def _format_markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(map(escape, cells)) + " |"
