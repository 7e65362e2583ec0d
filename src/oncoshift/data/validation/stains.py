"""Stain strength of tiles by organ, and how well colour alone separates their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from oncoshift.data.tables import LABELS, UNKNOWN

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

DENSITIES = ("density_red", "density_green", "density_blue")

STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
"""Optical density (red, green, blue) of haematoxylin, eosin and DAB (Ruifrok and Johnston 2001).
DAB takes the residual."""

_COLOURS = {0: "#0072B2", 1: "#D55E00", UNKNOWN: "0.5"}
_FOLDS = 5
_SEED = 0
_BINS = 40


def stain_strengths(densities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute haematoxylin, eosin and residual of optical densities by colour deconvolution.

    Args:
        densities: [N, 3], mean optical density of tissue in red, green and blue.

    Returns:
        [N, 3]; negative for a colour that is not a mixture of the three.
    """
    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    return np.asarray(densities @ np.linalg.inv(unit))


def colour_auroc(tiles: pd.DataFrame) -> float | None:
    """Compute the AUROC of a tile's mean colour for its label on held-out groups.

    It is that of a logistic regression on the three mean optical densities, cross-validated over
    groups (five folds, fewer if a class has fewer groups). Near 1, a model can be right without
    looking at cells; near 0.5, colour is no shortcut.

    Args:
        tiles: of one organ, with label, group and the columns `DENSITIES`; unknown labels are
            ignored.

    Returns:
        The AUROC of the pooled held-out scores; None if a class has fewer than two groups.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = tiles[tiles["label"] != UNKNOWN]
    groups = known.groupby("label")["group"].nunique()
    if len(groups) < len(LABELS) or groups.min() < 2:
        return None
    colours, labels = known[list(DENSITIES)].to_numpy(np.float64), known["label"].to_numpy()
    folds = StratifiedGroupKFold(min(_FOLDS, int(groups.min())), shuffle=True, random_state=_SEED)
    parts = list(folds.split(colours, labels, known["group"]))
    if any(len(np.unique(labels[fitted])) < len(LABELS) for fitted, _ in parts):
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    scores = cross_val_predict(model, colours, labels, cv=parts, method="decision_function")
    return float(roc_auc_score(labels, scores))


def draw_stain_histograms(tiles: pd.DataFrame) -> Figure:
    """Draw histograms of hue, haematoxylin and eosin: one row per organ, one colour per label.

    Args:
        tiles: with organ, label, hue and the columns `DENSITIES`.
    """
    strengths = stain_strengths(tiles[list(DENSITIES)].to_numpy(np.float64))
    values = {
        "hue of optical density, degrees": tiles["hue"].to_numpy(np.float64),
        "haematoxylin, optical density": strengths[:, 0],
        "eosin, optical density": strengths[:, 1],
    }
    organs = sorted(tiles["organ"].unique())
    figure = Figure(figsize=(9.6, 0.7 + 1.45 * len(organs)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(organs), len(values), squeeze=False, sharex="col")
    for column, (name, numbers) in enumerate(values.items()):
        low, high = float(numbers.min()), float(numbers.max())
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
        for row, organ in zip(grid, organs, strict=True):
            for label, colour in _COLOURS.items():
                chosen = numbers[((tiles["organ"] == organ) & (tiles["label"] == label)).to_numpy()]
                if len(chosen):
                    weights = np.full(len(chosen), 1 / len(chosen))
                    row[column].hist(chosen, edges, weights=weights, color=colour, alpha=0.55)
            row[column].set_yticks([])
            row[column].spines[["top", "left", "right"]].set_visible(False)
        grid[-1, column].set_xlabel(name)
    for row, organ in zip(grid, organs, strict=True):
        row[0].set_ylabel(organ)
    names = {0: LABELS[0], 1: LABELS[1], UNKNOWN: "unknown"}
    shown = [label for label in _COLOURS if (tiles["label"] == label).any()]
    figure.legend(
        handles=[Patch(color=_COLOURS[label], alpha=0.55) for label in shown],
        labels=[names[label] for label in shown],
        loc="outside upper right",
        ncols=len(shown),
        frameon=False,
    )
    return figure
