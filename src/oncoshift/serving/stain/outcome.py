"""The outcome of normalisation: a tile is normalised, or kept unchanged for lack of stain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

MIN_TISSUE = 0.05
"""Share of tissue below which a tile is blank: a fit of so little tissue would stain the glass."""

StainOutcome = Literal["normalised", "blank", "flat"]
"""Normalised, or kept unchanged for lack of tissue (blank) or of two colours in it (flat)."""


Tiles: TypeAlias = "Sequence[NDArray[np.uint8]] | NDArray[np.uint8]"
"""Several RGB uint8 tiles: an array [N, H, W, 3], or a sequence of [H, W, 3] that may load lazily.
"""


class Stained(NamedTuple):
    """A tile uint8 [H, W, 3] and its outcome; the input tile itself unless it was normalised."""

    image: NDArray[np.uint8]
    outcome: StainOutcome


class UnstainableTileError(ValueError):
    """A tile, or the tiles of a group, that cannot be fitted; `outcome` is blank or flat."""

    def __init__(self, outcome: StainOutcome) -> None:
        self.outcome = outcome
        super().__init__(f"the reference tile is {outcome}; a reference needs tissue with contrast")
