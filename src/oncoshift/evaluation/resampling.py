"""Bootstrap resamples of groups and seeds.

Tiles of one patient, slide or original are correlated, so whole groups are drawn with replacement
(the cluster bootstrap of Field & Welsh 2007, J. R. Stat. Soc. B 69:369). Draws are stratified
(Davison & Hinkley 1997, §3.2) by the labels in a group: only benign, only malignant, or both. Each
stratum keeps its number of groups, so no resample lacks a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_CHUNK_ELEMENTS = 250_000
"""Tile weights computed at once: 2 MB, which stay in a processor's cache."""


class TooFewGroupsError(DataError):
    """There are too few groups for a bootstrap interval."""


@dataclass(frozen=True)
class Resamples:
    """R draws of G groups with replacement.

    Attributes:
        index: int64 [N], the number of each tile's group, in 0..G-1.
        drawn: float64 [G, R], count of each group in each resample; each column sums to G.
    """

    index: NDArray[np.int64]
    drawn: NDArray[np.float64]

    def tile_weights(self) -> Iterator[NDArray[np.float64]]:
        """Yield the weights of the tiles [N, r], r resamples at a time, R in all."""
        columns = max(1, _CHUNK_ELEMENTS // len(self.index))
        for start in range(0, self.drawn.shape[1], columns):
            yield self.drawn.T[start : start + columns].take(self.index, axis=1).T


def resample_groups(
    labels: NDArray[np.int64], groups: NDArray[np.str_], resamples: int, rng: np.random.Generator
) -> Resamples:
    """Draw groups with replacement, stratified by the labels in them.

    Args:
        labels: [N] in {0, 1}.
        groups: [N].
        resamples: number of draws.
        rng: the source of randomness.

    Raises:
        TooFewGroupsError: a class is absent, or lies in fewer than two groups of one stratum, so
            that every resample would have the same tiles of it.
    """
    index = np.unique(groups, return_inverse=True)[1]
    kinds = _find_group_kinds(labels, index)
    _check_kinds(kinds)
    return Resamples(index, draw_groups(kinds, resamples, rng))


def draw_groups(kinds: NDArray[np.int64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw groups within their stratum `kinds` [G]; return the count of each group, [G, R]."""
    drawn = np.empty((len(kinds), resamples))
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        drawn[members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples).T
    return drawn


def draw_seeds(seeds: int, resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw seeds; return the share of each in each resample, [K, R]; columns sum to 1.

    Seeds are drawn as well because the seed is a source of variance just as the tiles are
    (Bouthillier 2021, "Accounting for variance in machine learning benchmarks").
    """
    return np.asarray(rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).T / seeds)


def _find_group_kinds(labels: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the stratum of each group [G]: 1 only benign, 2 only malignant, 3 both."""
    tiles = np.bincount(index)
    malignant = np.bincount(index, weights=labels)
    return np.asarray((malignant < tiles) + 2 * (malignant > 0), dtype=np.int64)


def _check_kinds(kinds: NDArray[np.int64]) -> None:
    for name, kind in (("benign", 1), ("malignant", 2)):
        holding = [int((kinds == kind).sum()), int((kinds == 3).sum())]
        if max(holding) < 2:
            raise TooFewGroupsError(
                f"no interval: {name} tiles come from {sum(holding)} group(s), {holding[1]} of them with both classes, "
                "too few to resample; label at least two patients, slides or originals with one class, or two with both"
            )
