"""What a stain normaliser does to a tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.serving.preprocess import StainOutcome


class Stained(NamedTuple):
    """A tile uint8 [S, S, 3] and what became of it; unless it was normalised it is the tile that went in."""

    image: NDArray[np.uint8]
    outcome: StainOutcome


class StainNormalizer(Protocol):
    """Brings tiles to the stain of a reference; never changes the tile that it is given."""

    def __call__(self, image: NDArray[np.uint8]) -> Stained:
        """Normalise one RGB tile, uint8 [S, S, 3]."""
        ...
