"""Pictures of the grid's results: matrix, slopes, evidence, stain effect, protocols, nuclei.

Figures are made without pyplot; colours are those of Okabe & Ito (2008).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from oncoshift.evaluation.plots import OKABE_ITO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from oncoshift.evaluation.intervals import Interval

_GREY = "0.55"


def draw_matrices(
    matrices: Sequence[tuple[str, NDArray[np.float64]]], rows: Sequence[str], columns: Sequence[str]
) -> Figure:
    """Draw accuracies by organ trained on and tested on as heat maps: blue above chance, red below.

    Args:
        matrices: title and values, float64 [rows, columns], NaN where there is none; side by side.
        rows: what was trained on.
        columns: organs tested on.
    """
    figure = Figure(figsize=(1.0 + 3.6 * len(matrices), 1.4 + 0.55 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(matrices), squeeze=False, sharey=True)[0]
    for axes, (title, values) in zip(panels, matrices, strict=True):
        image = axes.imshow(np.ma.masked_invalid(values), cmap="RdBu", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else f"{value:.2f}"
            dark = not np.isnan(value) and abs(value - 0.5) > 0.3
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=10)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_xlabel("tested on")
        axes.set_title(title, fontsize=10)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylabel("labels from")
    figure.colorbar(image, ax=list(panels), label="accuracy", shrink=0.9)
    return figure


def draw_slopes(pools: Sequence[tuple[str, Interval, Interval, float | None, str]]) -> Figure:
    """Draw balanced accuracy from source-only to adapted, a panel for each pool.

    Args:
        pools: title, source-only, adapted, what the target's own labels give or None, and the
            adapted method in words.
    """
    count = len(pools)
    columns = min(count, 4)
    lines = -(-count // columns)
    figure = Figure(figsize=(2.6 * columns, 3.0 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, (title, before, after, bound, method) in zip(panels, pools, strict=False):
        colour = OKABE_ITO[0] if after.point >= before.point else OKABE_ITO[1]
        axes.axhline(0.5, color=_GREY, linestyle="--", linewidth=1)
        if bound is not None:
            axes.axhline(bound, color=OKABE_ITO[2], linewidth=1)
        axes.plot([0, 1], [before.point, after.point], color=colour, linewidth=2.5)
        for place, each in enumerate((before, after)):
            axes.plot([place, place], [each.low, each.high], color=colour, linewidth=1.2)
            axes.plot(place, each.point, "o", color=colour)
            side = ("right", -0.07) if place == 0 else ("left", 1.07)
            axes.text(side[1], each.point, f"{each.point:.2f}", ha=side[0], va="center", fontsize=9)
        axes.set_title(title.replace(" ← ", "\n← "), fontsize=9)
        axes.set_xticks([0, 1], ["source-only", method.replace(" on ", "\non ").replace(" without ", "\nwithout ")])
        axes.set(xlim=(-0.45, 1.45), ylim=(-0.03, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[count:]:
        axes.set_visible(False)
    figure.supylabel("balanced accuracy on test tiles of the target", fontsize=9)
    return figure


def draw_values(rows: Sequence[tuple[str, str, Interval]], label: str, chance: float = 0.0) -> Figure:
    """Draw differences, or other values, with their intervals, one line each, series by colour.

    Args:
        rows: name of the line, name of the series, and the value.
        label: what the axis shows.
        chance: the value without any effect, which gets a dashed line.
    """
    names = list(dict.fromkeys(name for name, _, _ in rows))
    series = list(dict.fromkeys(each for _, each, _ in rows))
    figure = Figure(figsize=(7.0, 1.1 + 0.24 * len(names) * max(1, len(series))), layout="constrained")
    axes = figure.subplots()
    axes.axvline(chance, color=_GREY, linestyle="--", linewidth=1)
    for number, each in enumerate(series):
        offset = (number - (len(series) - 1) / 2) * 0.8 / max(1, len(series))
        _draw_series(axes, [row for row in rows if row[1] == each], names, offset, OKABE_ITO[number % 6], each)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(axis="x", color="0.9")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if len(series) > 1:
        figure.legend(loc="outside upper center", ncols=len(series), frameon=False)
    return figure


def draw_evidence(points: Sequence[tuple[str, float, float]], limit: float, label: str) -> Figure:
    """Draw balanced accuracy against evidence without labels, a point a model, series by colour.

    Args:
        points: name of the series, the evidence, and balanced accuracy, 0 to 1.
        limit: of the evidence, from which the verdict trusts.
        label: what the evidence is.
    """
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0.5, color=_GREY, linestyle="--", linewidth=1)
    axes.axvline(limit, color=_GREY, linewidth=1)
    axes.text(limit, 1.04, f"trusted from {limit:g}", ha="center", va="bottom", fontsize=8, color="0.35")
    for number, name in enumerate(dict.fromkeys(name for name, _, _ in points)):
        own = [(x, y) for each, x, y in points if each == name]
        # Eight colours are few; a second round of series is told by its marker.
        marker, colour = "os^"[number // len(OKABE_ITO) % 3], OKABE_ITO[number % len(OKABE_ITO)]
        axes.plot(*zip(*own, strict=True), marker, color=colour, markersize=5, alpha=0.8, label=name)
    axes.set(xlabel=label, ylabel="balanced accuracy on test tiles", ylim=(-0.03, 1.03))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _draw_series(
    axes: Axes, rows: Sequence[tuple[str, str, Interval]], names: Sequence[str], offset: float, colour: str, label: str
) -> None:
    for number, (name, _, value) in enumerate(rows):
        place = names.index(name) + offset
        axes.plot([value.low, value.high], [place, place], color=colour, linewidth=1.4)
        axes.plot(value.point, place, "o", color=colour, markersize=5, label=label if number == 0 else None)
