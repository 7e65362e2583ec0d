"""The gallery: tile, signed attribution, and both together with the nuclei outlined."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy import ndimage

from oncoshift.data.tables import LABELS
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from oncoshift.explain.nuclei import NucleiShare
    from oncoshift.serving.attributions import Attribution

_COLOURS = colormaps["RdBu_r"]
_PANEL, _CAPTION, _MARGIN, _FOOT = 1.65, 0.34, 0.15, 0.55
"""Inches: side of a panel, room above it, around all, and below all for the colour bar."""
_PER_ROW = 2
_LIMIT_PERCENTILE = 99.0
_HEADINGS = ("tile", "attribution", "with nuclei outlined")


def draw_gallery(
    tiles: NDArray[np.uint8],
    attributions: Attribution,
    masks: NDArray[np.bool_],
    shares: NucleiShare,
    labels: NDArray[np.int64] | None = None,
) -> Figure:
    """Draw tiles beside what moved the classifier, in the order given, two tiles in a row.

    Each map has its own symmetric scale, at the 99th percentile of its |attribution|, and is
    smoothed a little for the eye (σ = S / 100 pixels); the numbers in the captions come from the
    unsmoothed values.

    Args:
        tiles: uint8 [N, S, S, 3].
        attributions: of the N tiles.
        masks: bool [N, S, S], True on nuclei.
        shares: of the N tiles.
        labels: [N], 0 or 1, or -1 for unknown; None where nothing is known.

    Raises:
        DataError: there are no tiles, or numbers of tiles differ.
    """
    count = len(tiles)
    if count == 0 or not count == len(attributions.values) == len(masks) == len(shares.share):
        raise DataError(
            f"got {count} tiles, {len(attributions.values)} attributions, {len(masks)} masks and "
            f"{len(shares.share)} shares; a gallery needs as many of each, at least one"
        )
    figure, panels = _create_panels(count)
    for number, row in enumerate(panels):
        values, limit = _smooth(attributions.values[number])
        row[0].imshow(tiles[number], interpolation="nearest")
        row[1].imshow(values, cmap=_COLOURS, vmin=-limit, vmax=limit, interpolation="nearest")
        _draw_overlay(row[2], tiles[number], values / limit, masks[number])
        row[0].set_title(_format_caption(number, attributions, shares, labels), loc="left", fontsize=7.5, pad=3)
    _draw_foot(figure)
    return figure


def _create_panels(count: int) -> tuple[Figure, list[list[Axes]]]:
    """Create a figure with three axes a tile, placed in inches: layout engines are slow here."""
    columns = min(count, _PER_ROW)
    rows = -(-count // _PER_ROW)
    block = 3 * _PANEL + _MARGIN
    width, height = columns * (block + _MARGIN), rows * (_PANEL + _CAPTION) + _FOOT + 0.25
    figure = Figure(figsize=(width, height))
    panels = []
    for number in range(count):
        row, column = divmod(number, _PER_ROW)
        left = _MARGIN + column * (block + _MARGIN)
        bottom = height - 0.2 - (row + 1) * (_PANEL + _CAPTION)
        places = [left + panel * (_PANEL + _MARGIN / 3) for panel in range(3)]
        panels.append([figure.add_axes((x / width, bottom / height, _PANEL / width, _PANEL / height)) for x in places])
        for axes in panels[-1]:
            axes.set_axis_off()
        if row == 0:
            for x, heading in zip(places, _HEADINGS, strict=True):
                figure.text((x + _PANEL / 2) / width, 1 - 0.16 / height, heading, ha="center", fontsize=8, color="0.4")
    return figure, panels


def _smooth(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Smooth a map, and return it with the end of its symmetric scale (±1 for a map of zeros)."""
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(values, sigma=values.shape[0] / 100)
    limit = float(np.percentile(np.abs(smooth), _LIMIT_PERCENTILE))
    return smooth, limit or 1.0


def _draw_overlay(axes: Axes, tile: NDArray[np.uint8], relative: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    """Draw attribution, relative to the end of its scale, and nuclei over the tile in pale grey."""
    grey = 0.35 + 0.65 * tile.mean(axis=2, keepdims=True) / 255
    opacity = np.clip(np.abs(relative), 0, 1)[..., None] * 0.9
    colour = _COLOURS((np.clip(relative, -1, 1) + 1) / 2)[..., :3]
    axes.imshow(grey * (1 - opacity) + colour * opacity, interpolation="nearest")
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors="black", linewidths=0.6)


def _format_caption(
    number: int, attributions: Attribution, shares: NucleiShare, labels: NDArray[np.int64] | None
) -> str:
    parts = [f"#{number}", f"p(malignant) {attributions.probabilities[number]:.2f}"]
    if labels is not None and labels[number] >= 0:
        parts.append(f"label {LABELS[labels[number]]}")
    if np.isfinite(shares.enrichment[number]):
        parts.append(f"nuclei {shares.share[number]:.0%} of attribution, {shares.area[number]:.0%} of area")
    else:
        parts.append("no nuclei found" if shares.area[number] == 0 else "no attribution")
    return "  ·  ".join(parts)


def _draw_foot(figure: Figure) -> None:
    """Draw the colour bar: without numbers, because each map has its own scale."""
    width, height = figure.get_size_inches()
    bar = figure.add_axes(((width / 2 - 1.2) / width, 0.3 / height, 2.4 / width, 0.1 / height))
    figure.colorbar(ScalarMappable(Normalize(-1, 1), _COLOURS), cax=bar, orientation="horizontal")
    bar.set_xticks((-1, 0, 1), ("towards benign", "0", "towards malignant"), fontsize=8)
    bar.tick_params(length=0)
