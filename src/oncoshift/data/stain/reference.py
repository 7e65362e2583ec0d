"""The rule that picks the reference tile, so that nobody picks it by eye.

Of the source training tiles that can be normalised, each at the pack's size and with its luminosity standardised, take
means and standard deviations of L, a and b. Typical are the twentieth of them that are nearest (Euclidean, in LAB
units) to the median of these six figures. The reference is the typical tile whose file's hash comes first. Target,
validation, audit and test have no say. One tile is the reference of every variant.

Not simply the nearest tile: a few new tiles move the median a little, and with it the nearest tile, and every tile of
every pack would have to be normalised again. The first by hash of a twentieth mostly stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TYPICAL = 20
"""One in so many tiles, those nearest to the median, can be the reference."""

Statistics = tuple[float, ...]
"""Means of L, a, b, then their standard deviations."""


def compute_tile_statistics(image: NDArray[np.uint8]) -> Statistics | None:
    """The six figures of a tile uint8 [S, S, 3], or None for a tile that cannot be normalised."""
    from oncoshift.serving.stain.reinhard import fit

    found = fit([image], standardize=True)
    return None if isinstance(found, str) else (*found.means, *found.stds)


def pick_reference(statistics: Sequence[Statistics | None], digests: Sequence[str]) -> int:
    """Position of the reference.

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
