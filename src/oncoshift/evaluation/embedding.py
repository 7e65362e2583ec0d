"""Maps of the shared feature: what adaptation did to the distance between organs and classes.

A map is the projection on the first two principal components of one model's features. PCA is linear
and deterministic, so distances in a map can be compared with one another, which those of UMAP or
t-SNE cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA

from oncoshift.data.tables import LABELS
from oncoshift.evaluation.plots import OKABE_ITO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

TILES_PER_ORGAN = 300
"""Tiles of an organ on a map; of more, evenly spaced ones are drawn."""

_MARKERS = ("o", "^")
"""Of benign and malignant tiles, so that they differ in more than colour."""


@dataclass(frozen=True)
class FeatureMap:
    """The features of one model.

    Attributes:
        title: of the map.
        features: [N, D].
        organs: str [N].
        labels: int64 [N].
    """

    title: str
    features: NDArray[np.floating]
    organs: NDArray[np.str_]
    labels: NDArray[np.int64]


def draw_embedding(maps: Sequence[FeatureMap], target: str) -> Figure:
    """Draw each model's map twice: coloured by organ above, and by label below.

    Tiles of the target have a dark edge; benign tiles are circles and malignant ones triangles.

    Args:
        maps: of one or more models, side by side; their organs must be the same.
        target: organ adapted to.
    """
    figure = Figure(figsize=(4.6 * len(maps) + 1.6, 8.4), layout="constrained")
    grid = figure.subplots(2, len(maps), squeeze=False)
    organs = [*sorted(set(maps[0].organs) - {target}), target]
    of_organ = {organ: OKABE_ITO[number % len(OKABE_ITO)] for number, organ in enumerate(organs)}
    of_label = dict(enumerate(OKABE_ITO[:2]))
    for column, each in enumerate(maps):
        projection = PCA(2, random_state=0)
        points = projection.fit_transform(each.features)
        shares = projection.explained_variance_ratio_
        colourings = (
            [of_organ[organ] for organ in each.organs],
            [of_label[label] for label in each.labels.tolist()],
        )
        for axes, colours in zip(grid[:, column], colourings, strict=True):
            _scatter(axes, points, colours, each, target)
            axes.set(xlabel=f"PC 1 ({shares[0]:.0%} of variance)", ylabel=f"PC 2 ({shares[1]:.0%})")
        grid[0, column].set_title(each.title, fontsize=11)
    _add_legend(grid[0, -1], "organ", of_organ, {target})
    _add_legend(grid[1, -1], "label", {LABELS[label]: colour for label, colour in of_label.items()}, set())
    return figure


def pick_rows(organs: NDArray[np.str_], most: int = TILES_PER_ORGAN) -> NDArray[np.int64]:
    """Pick evenly spaced rows, at most `most` of each organ, in their order."""
    picked = []
    for organ in np.unique(organs):
        rows = np.flatnonzero(organs == organ)
        picked.append(rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))])
    return np.sort(np.concatenate(picked))


def _scatter(axes: Axes, points: NDArray[np.floating], colours: list[str], each: FeatureMap, target: str) -> None:
    for of_target in (False, True):  # the target on top
        for label, marker in enumerate(_MARKERS):
            chosen = np.flatnonzero((each.labels == label) & ((each.organs == target) == of_target))
            axes.scatter(
                points[chosen, 0],
                points[chosen, 1],
                c=[colours[row] for row in chosen],
                marker=marker,
                s=26 if of_target else 18,
                alpha=0.85 if of_target else 0.55,
                edgecolors="black" if of_target else "none",
                linewidths=0.6,
            )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(False)


def _add_legend(axes: Axes, title: str, colours: dict[str, str], dark: set[str]) -> None:
    """Add a legend right of a map, of colours, and of markers where they are labels."""
    handles = []
    for number, (name, colour) in enumerate(colours.items()):
        marker = _MARKERS[number] if title == "label" else "s"
        edge = "black" if name in dark else "none"
        text = f"{name} (target)" if name in dark else name
        handles.append(
            Line2D([], [], color=colour, marker=marker, linestyle="", markeredgecolor=edge, markersize=8, label=text)
        )
    axes.legend(handles=handles, title=title, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
