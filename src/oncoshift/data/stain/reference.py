"""The rule that picks the reference tile, so that nobody picks it by eye.

Of the source training tiles that can be normalised, each at the pack's size and with its luminosity standardised, take
means and standard deviations of L, a and b. The reference is the tile nearest (Euclidean, in LAB units) to the median
of these six figures over all of them; the first by tile_id wins a tie. Target, validation, audit and test have no say.
One tile is the reference of every variant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Statistics = tuple[float, ...]
"""Means of L, a, b, then their standard deviations."""


def tile_statistics(image: NDArray[np.uint8]) -> Statistics | None:
    """The six figures of a tile uint8 [S, S, 3], or None for a tile that cannot be normalised."""
    from oncoshift.serving.stain.reinhard import fit

    found = fit([image], standardize=True)
    return None if isinstance(found, str) else (*found.means, *found.stds)


def nearest_to_median(statistics: Sequence[Statistics | None]) -> int:
    """Position of the tile nearest to the median.

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
    return usable[int(np.argmin(distances))]
