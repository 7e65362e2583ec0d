"""The distance of a tile from the training tiles, in the network's features.

It is one minus the cosine similarity to the `NEIGHBOURS`-th nearest training tile (deep nearest
neighbours: Sun et al. 2022, arXiv 2204.06507). Needs NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NEIGHBOURS = 5
"""Which nearest training tile counts: one alone may be an outlier itself."""

PERCENTILE = 99.0
MARGIN = 1.5
"""A tile is far from `MARGIN` times the distance that `PERCENTILE` % of training tiles have."""


@dataclass(frozen=True)
class ShiftReference:
    """Features of training tiles, and how far these are from one another.

    Attributes:
        features: float16 [N, D], of length 1.
        distances: float32 [N], sorted: of each from those of other groups.
    """

    features: NDArray[np.float16]
    distances: NDArray[np.float32]

    @classmethod
    def fit(cls, features: NDArray[np.float32], groups: NDArray[np.str_]) -> Self:
        """Keep features of training tiles.

        Args:
            features: float32 [N, D].
            groups: [N], patients, slides or originals; a tile is near those of its own group,
                which a new patient's is not.
        """
        unit = _scale(features)
        similar = unit @ unit.T
        similar[groups[:, None] == groups[None, :]] = -1  # the least there is
        return cls(unit.astype(np.float16), np.sort(1 - _find_neighbour(similar)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["features"], arrays["distances"])

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        np.savez(path, features=self.features, distances=self.distances)

    @property
    def limit(self) -> float:
        """The distance from which a tile is far."""
        return MARGIN * float(np.percentile(self.distances, PERCENTILE))

    def measure(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the distances, 0 to 2, [M], of tiles with features [M, D]."""
        return 1 - _find_neighbour(_scale(features) @ self.features.T.astype(np.float32))

    def rank(self, distance: float) -> float:
        """Return the percentile, 0–100, of a distance among those of the training tiles."""
        below = int(np.searchsorted(self.distances, distance, side="right"))
        return round(100.0 * below / len(self.distances), 2)


def _scale(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale features [N, D] to length 1."""
    scaled: NDArray[np.float32] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return scaled


def _find_neighbour(similar: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the similarity of the `NEIGHBOURS`-th nearest of N for each row [M, N], [M]."""
    nth = min(NEIGHBOURS, similar.shape[1])
    found: NDArray[np.float32] = np.partition(similar, -nth, axis=1)[:, -nth]
    return found
