"""The rule that picks the stain reference tile, instead of a choice by eye.

For each source training tile that can be normalised, at the pack's size and with standardised
luminosity, compute means and standard deviations of L, a and b. The twentieth of the tiles nearest
to the median of these six figures (Euclidean distance in LAB units) is typical. The reference is
the typical tile whose file has the smallest hash. Target, validation, audit and test tiles have no
influence. All variants share one reference.

The nearest tile itself would be a poor rule: a few new tiles move the median a little and change
the nearest tile, and then every tile of every pack would have to be normalised again. The smallest
hash among a twentieth mostly stays the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TYPICAL = 20
"""One in this many tiles, those nearest to the median, can be the reference."""

Statistics = tuple[float, ...]
"""Means of L, a, b, then their standard deviations."""


def compute_tile_statistics(image: NDArray[np.uint8]) -> Statistics | None:
    """Compute the six figures of a tile uint8 [S, S, 3]; None if it cannot be normalised."""
    from oncoshift.serving.stain.reinhard import fit

    found = fit([image], standardize=True)
    return None if isinstance(found, str) else (*found.means, *found.stds)


def pick_reference(statistics: Sequence[Statistics | None], digests: Sequence[str]) -> int:
    """Pick the position of the reference.

    Args:
        statistics: of each candidate, see `compute_tile_statistics`.
        digests: hash of each candidate's file.

    Raises:
        DataError: no tile can be normalised.
    """
    usable = [position for position, figures in enumerate(statistics) if figures is not None]
    if not usable:
        raise DataError(
            "no source training tile has tissue with contrast, so none can be the stain reference; "
            "look at the tiles, or set normalize.variants to [none]"
        )
    figures = np.array([statistics[position] for position in usable])
    distances = np.linalg.norm(figures - np.median(figures, axis=0), axis=1)
    nearest = sorted(zip(distances.tolist(), (digests[i] for i in usable), usable, strict=True))
    typical = nearest[: -(-len(usable) // TYPICAL)]
    return min((digest, position) for _, digest, position in typical)[1]
