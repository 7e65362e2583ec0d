"""The cross-organ matrix: models from each organ, evaluated on the tiles of each organ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from oncoshift.evaluation.domains import evaluate_domains

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.settings import EvaluateSettings


def build_cross_organ(predictions: Mapping[str, pd.DataFrame], settings: EvaluateSettings) -> pd.DataFrame:
    """Evaluate each model on every organ.

    Args:
        predictions: name of the organs that a model is from → its predictions, with the columns of
            `evaluation.domains.PREDICTION_COLUMNS`.
        settings: section `evaluate`.

    Returns:
        One row per model and organ: trained_on, tested_on, seeds, tiles, groups, balanced_accuracy
        with _low and _high, auroc; NaN where there is no value.
    """
    parts = []
    for name, table in predictions.items():
        frame = evaluate_domains(table, settings).to_frame().rename(columns={"organ": "tested_on"})
        parts.append(frame.assign(trained_on=name))
    columns = ["trained_on", "tested_on", "seeds", "tiles", "groups"]
    figures = ["balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high", "auroc"]
    return pd.concat(parts, ignore_index=True)[columns + figures]


def draw_cross_organ(matrix: pd.DataFrame, target: str, title: str) -> Figure:
    """Draw the matrix as a heat map: blue above chance, red below, the target in the last column.

    Args:
        matrix: of `build_cross_organ`.
        target: organ whose tiles are test tiles; the others are validation tiles.
        title: of the figure.
    """
    rows = list(dict.fromkeys(matrix["trained_on"]))
    tested = set(matrix["tested_on"]) - {target}
    columns = [*(organ for organ in rows if organ in tested), *sorted(tested - set(rows)), target]
    values = matrix.pivot(index="trained_on", columns="tested_on", values="balanced_accuracy").loc[rows]
    shown = values.reindex(columns=columns).to_numpy(np.float64)
    figure = Figure(figsize=(2.6 + 1.1 * len(columns), 1.8 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(shown), cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(shown):
        colour = "white" if abs(value - 0.5) > 0.3 else "black"
        text = "–" if np.isnan(value) else f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11)
    tiles = matrix.drop_duplicates("tested_on").set_index("tested_on")["tiles"]
    axes.set_xticks(range(len(columns)), [f"{organ}\n{tiles[organ]:,} tiles" for organ in columns])
    axes.get_xticklabels()[-1].set_fontweight("bold")
    axes.axvline(len(columns) - 1.5, color="black", linewidth=1.5)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel="tested on", ylabel="labels from")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11)
    figure.colorbar(image, ax=axes, label="balanced accuracy")
    return figure
