"""What can become of a tile: normalised, or kept as it is because there is no stain to measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

MIN_TISSUE = 0.05
"""Share of tissue pixels below which a tile is blank: stretching so little tissue over the reference paints glass."""

StainOutcome = Literal["normalised", "blank", "flat"]
"""What became of a tile: normalised; or kept as it is, for want of tissue (blank) or of two colours in it (flat)."""


Tiles: TypeAlias = "Sequence[NDArray[np.uint8]] | NDArray[np.uint8]"
"""Several tiles RGB uint8: one array [N, H, W, 3], or any sequence of [H, W, 3] that may load them one by one."""


class Stained(NamedTuple):
    """A tile uint8 [H, W, 3] and what became of it; unless it was normalised it is the tile that went in."""

    image: NDArray[np.uint8]
    outcome: StainOutcome


class UnstainableTileError(ValueError):
    """A tile (or the tiles of a group) cannot be fitted; `outcome` says whether it is blank or flat."""

    def __init__(self, outcome: StainOutcome) -> None:
        self.outcome = outcome
        super().__init__(f"the reference tile is {outcome}; a reference needs tissue with contrast")
