"""The distance of a tile from the training tiles, in the network's features.

It is one minus the cosine similarity to the `NEIGHBOURS`-th nearest training tile of an organ (deep
nearest neighbours: Sun et al. 2022, arXiv 2204.06507), as a multiple of the distance that 99 % of
that organ's own tiles keep; the organ where this is least counts. Needs NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NEIGHBOURS = 5
"""Which nearest training tile counts: the first may be an outlier itself."""

PERCENTILE = 99.0

LIMIT = 1.1
"""The distance from which a tile is far: up to 3 % of real tiles of the training organs are, and
85 % of those of kidney from lung and colon, in the features of an ImageNet ResNet50."""


@dataclass(frozen=True)
class ShiftReference:
    """Features of training tiles, and how far these are from one another.

    Attributes:
        features: float16 [N, D], of length 1.
        organs: int64 [N], numbers of the tiles' organs, from 0.
        scales: float32, by organ, the `PERCENTILE` of its tiles' distances from those of other
            groups; an organ whose other groups have too few tiles has the median of the others'.
        distances: float32 [≤ N], sorted: these distances as multiples of the scales.
    """

    features: NDArray[np.float16]
    organs: NDArray[np.int64]
    scales: NDArray[np.float32]
    distances: NDArray[np.float32]

    @classmethod
    def fit(cls, features: NDArray[np.float32], organs: NDArray[np.str_], groups: NDArray[np.str_]) -> Self:
        """Keep features of training tiles.

        Args:
            features: float32 [N, D].
            organs: [N].
            groups: [N], patients, slides or originals. A tile is near those of its own group, as
                one of a new patient is not.
        """
        unit = _scale(features)
        names, numbers = np.unique(organs, return_inverse=True)
        rows = [np.flatnonzero(numbers == organ) for organ in range(len(names))]
        own = [_measure_own(unit[each], groups[each]) for each in rows]
        if not any(map(len, own)):  # each organ has one group: each tile counts as one of its own
            own = [_measure_own(unit[each], each.astype(np.str_)) for each in rows]
        if not any(map(len, own)):  # one tile each
            own = [np.ones(1, np.float32) for _ in rows]
        scales = np.array([np.percentile(each, PERCENTILE) if len(each) else np.nan for each in own], np.float32)
        scales = np.maximum(np.where(np.isnan(scales), np.nanmedian(scales), scales), np.float32(1e-6))
        distances = np.concatenate([each / scale for each, scale in zip(own, scales, strict=True)])
        return cls(unit.astype(np.float16), numbers.astype(np.int64), scales, np.sort(distances))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["features"], arrays["organs"], arrays["scales"], arrays["distances"])

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        np.savez(path, features=self.features, organs=self.organs, scales=self.scales, distances=self.distances)

    def measure(self, features: NDArray[np.float32], others: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Return the distances [M] of tiles with features [M, D]; 1 is at the rim of an organ.

        Args:
            features: of the tiles.
            others: [M, N], which training tiles count for each; None: all. A training tile itself
                is measured from those of other groups.
        """
        similar = _scale(features) @ self.features.T.astype(np.float32)
        if others is not None:
            similar = np.where(others, similar, np.float32(-1))
        by_organ = [
            (1 - _find_neighbour(similar[:, self.organs == organ])) / scale for organ, scale in enumerate(self.scales)
        ]
        nearest: NDArray[np.float32] = np.min(by_organ, axis=0)
        return nearest

    def rank(self, distance: float) -> float:
        """Return the percentile, 0–100, of a distance among those of the training tiles."""
        below = int(np.searchsorted(self.distances, distance, side="right"))
        return round(100.0 * below / len(self.distances), 2)


def _scale(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale features [N, D] to length 1."""
    scaled: NDArray[np.float32] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return scaled


def _measure_own(unit: NDArray[np.float32], groups: NDArray[np.str_]) -> NDArray[np.float32]:
    """Measure how far tiles [N, D] of an organ are from those of other groups.

    Returns:
        [≤ N], of the tiles that have enough neighbours in other groups.
    """
    others = groups[:, None] != groups[None, :]
    measured = others.sum(axis=1) >= max(1, min(NEIGHBOURS, len(unit) - 1))
    similar = np.where(others, unit @ unit.T, np.float32(-1))  # the least there is
    found: NDArray[np.float32] = 1 - _find_neighbour(similar[measured])
    return found


def _find_neighbour(similar: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the similarity of the `NEIGHBOURS`-th nearest of N for each row [M, N], [M]."""
    nth = min(NEIGHBOURS, similar.shape[1])
    found: NDArray[np.float32] = np.partition(similar, -nth, axis=1)[:, -nth]
    return found
