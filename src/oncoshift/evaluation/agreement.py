"""Heat map of the pairwise agreement of models on the same tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def draw_agreement(names: Sequence[str], kappas: NDArray[np.float64], title: str) -> Figure:
    """Draw Cohen's kappa of each pair of models as a heat map, blue above 0 and red below.

    Args:
        names: of K ≥ 2 models.
        kappas: [K, K], symmetric; the diagonal is not drawn.
        title: of the figure.

    Raises:
        DataError: there are fewer than two models, or `kappas` has another shape.
    """
    count = len(names)
    if count < 2 or kappas.shape != (count, count):
        raise DataError(f"expected kappas [K, K] of K ≥ 2 models, got {count} names and shape {kappas.shape}")
    side = 1.6 + 0.8 * count
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shown = np.ma.masked_where(np.tri(count) == 0, kappas)  # below the diagonal: each pair once
    shown[np.diag_indices(count)] = np.ma.masked
    image = axes.imshow(shown[1:, :-1], cmap="RdBu", vmin=-1, vmax=1)
    for (row, column), kappa in np.ndenumerate(kappas[1:, :-1]):
        if column <= row:
            colour = "white" if abs(kappa) > 0.6 else "black"
            axes.text(column, row, f"{kappa:.2f}", ha="center", va="center", color=colour, fontsize=11)
    axes.set_xticks(range(count - 1), names[:-1], rotation=20, ha="right")
    axes.set_yticks(range(count - 1), names[1:])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11)
    figure.colorbar(image, ax=axes, label="Cohen's kappa", shrink=0.8)
    return figure
