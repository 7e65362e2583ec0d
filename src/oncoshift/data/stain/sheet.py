"""A sheet of tiles in all stain variants side by side, for looking at what normalisation does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

INCHES = 1.4
"""Side of a tile on the sheet."""


def draw_stain_sheet(
    tiles: Mapping[str, Sequence[NDArray[np.uint8]]], rows: Sequence[str], outcomes: Mapping[str, Sequence[str]]
) -> Figure:
    """Draw a row for each tile and a column for each variant.

    Args:
        tiles: variant → the same tiles, uint8 [H, W, 3], in the order of `rows`.
        rows: the label of each row, for example its organ.
        outcomes: variant → each tile's outcome, which is written below the tile unless it is
            normalised or untouched.

    Raises:
        ValueError: a variant does not have as many tiles as there are rows.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES * len(tiles) + 0.6, INCHES * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), len(tiles), squeeze=False)
    for column, (variant, images) in enumerate(tiles.items()):
        for row, image in zip(range(len(rows)), images, strict=True):
            axis = axes[row, column]
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
            outcome = outcomes[variant][row]
            if outcome not in ("normalised", "untouched"):
                axis.set_xlabel(outcome, fontsize=8)
            if row == 0:
                axis.set_title(variant, fontsize=9)
            if column == 0:
                axis.set_ylabel(rows[row], fontsize=9)
    return figure
