"""Metrics of slices of the tiles: organs, worst groups, and thirds by stain and quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.evaluation.domains import OrganPredictions, split_by_organ
from oncoshift.evaluation.metrics import compute_metrics
from oncoshift.markdown import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

WORST_GROUPS = 5
"""Groups of an organ that are listed, those with the lowest accuracy."""

_THIRDS = ("low", "middle", "high")
_FIGURES = ("accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity")


def build_slices(predictions: pd.DataFrame, measurements: pd.DataFrame, target: str) -> pd.DataFrame:
    """Compute metrics of slices, as means over seeds.

    Args:
        predictions: with the columns `oncoshift.evaluation.domains.PREDICTION_COLUMNS`.
        measurements: indexed by tile_id, one column per property of tiles of the target, such as
            sharpness; each is divided into thirds.
        target: organ of the slices by group, stain and quality.

    Returns:
        One row per slice: by (organ, group, or the property), slice, tiles, groups, malignant (the
        share of tiles), and metrics, NaN where the slice lacks a class.
    """
    rows = []
    for tiles in split_by_organ(predictions):
        everything = np.ones(len(tiles.labels), bool)
        rows.append(_compute_row("organ", tiles.organ, tiles, everything))
    (tiles,) = split_by_organ(predictions[predictions["organ"] == target])
    ids = np.sort(predictions.loc[predictions["organ"] == target, "tile_id"].unique())
    rows += [_compute_row("group", name, tiles, chosen) for name, chosen in _find_worst_groups(tiles)]
    for column, values in measurements.reindex(ids).items():
        thirds = _split_into_thirds(values.to_numpy(np.float64))
        rows += [_compute_row(str(column), name, tiles, chosen) for name, chosen in thirds]
    return pd.DataFrame(rows)


def format_slices(slices: pd.DataFrame) -> str:
    """Format the result of `build_slices` as Markdown."""
    columns = ["by", "slice", "tiles", "groups", "malignant", *_FIGURES]
    lines = ["| " + " | ".join(name.replace("_", " ") for name in columns) + " |", "|---" * len(columns) + "|"]
    for row in slices[columns].itertuples(index=False):
        cells = [escape(str(row[0])), escape(str(row[1])), f"{row[2]:,}", f"{row[3]}"]
        cells += ["–" if np.isnan(value) else f"{value:.3f}" for value in row[4:]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _find_worst_groups(tiles: OrganPredictions) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the groups with the lowest accuracy, mean over seeds, and their tiles."""
    right = (tiles.probabilities >= tiles.thresholds[:, None]) == (tiles.labels == 1)
    accuracy = pd.Series(right.mean(axis=0)).groupby(tiles.groups).mean().sort_values(kind="stable")
    for name in accuracy.index[:WORST_GROUPS]:
        yield str(name), tiles.groups == name


def _split_into_thirds(values: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield thirds of equally many tiles with their range; tied values stay in one third."""
    bounds = np.quantile(values, (1 / 3, 2 / 3))
    third = np.searchsorted(bounds, values, side="left")
    for number, name in enumerate(_THIRDS):
        chosen = third == number
        if chosen.any():
            yield f"{name} ({values[chosen].min():.3g} to {values[chosen].max():.3g})", chosen


def _compute_row(by: str, name: str, tiles: OrganPredictions, chosen: NDArray[np.bool_]) -> dict[str, object]:
    labels, groups = tiles.labels[chosen], tiles.groups[chosen]
    models = zip(tiles.probabilities[:, chosen], tiles.thresholds, strict=True)
    every = [compute_metrics(labels, row, groups, threshold).as_dict() for row, threshold in models]
    figures = {
        figure: float(np.mean([np.nan if each[figure] is None else each[figure] for each in every]))
        for figure in _FIGURES
    }
    size = {"tiles": len(labels), "groups": len(np.unique(groups)), "malignant": float(labels.mean())}
    return {"by": by, "slice": name, **size, **figures}
