"""Candidate pairs: tiles whose features are near neighbours in an inverted-file index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.copies.index import build_index, flatten_descriptors
from oncoshift.serving.stain.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.copies.scratch import Scratch

_NEIGHBOURS = 12
"""Neighbours searched for each feature, itself included. Copies are joined transitively, so not all
of them have to be found."""

_VOTES = 2
"""Features of a tile that must have a neighbour in the other one. On LC25000 this keeps 95 of 100
pairs of copies; most of the others are linked through a third copy."""

_MOST = 32
"""Candidates per tile at most, those with the most votes, so that the work grows with the number of
tiles and not with the number of pairs."""

_BLOCK = 2048
"""Tiles searched at once, so that float copies of the descriptors stay at 16 MB."""


def find_candidates(descriptors: NDArray[np.uint8], used: NDArray[np.int64], room: Scratch) -> NDArray[np.int64]:
    """Find pairs of tiles that share neighbouring features.

    All values are integers below 2²⁴, which float32 sums exactly in any order, so the number of
    threads does not change the result. Beside the index of `index.py` this needs about 1 KB of
    memory per tile, most of it for pairs.

    Args:
        descriptors: uint8 [N, F, DESCRIPTOR_SIZE], each tile's descriptors.
        used: int64 [N], how many of a tile's descriptors are set.
        room: where the index is stored.

    Returns:
        int64 [P, 2] of positions, first < second, sorted.
    """
    count, total = len(used), int(used.sum())
    if total < _NEIGHBOURS or count < 2:
        few = np.array([(i, j) for i in range(count) for j in range(i + 1, count)], dtype=np.int64)
        return few.reshape(-1, 2)
    tile_of = np.repeat(np.arange(count, dtype=np.int32), used)
    found = []
    index = build_index(descriptors, used, room)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        queries = flatten_descriptors(descriptors, used, start, stop)
        if len(queries) == 0:
            continue
        neighbours = index.search(queries, _NEIGHBOURS)
        others = np.where(neighbours >= 0, tile_of[neighbours], -1).astype(np.int64)
        bounds = np.concatenate(([0], np.cumsum(used[start:stop])))
        pairs = _pair_by_votes(others, bounds, start, _VOTES, _MOST)
        found.append(np.unique(pairs.min(axis=1) * count + pairs.max(axis=1)))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), count), axis=1)


@compiled
def _pair_by_votes(
    others: NDArray[np.int64], bounds: NDArray[np.int64], first: int, votes: int, most: int
) -> NDArray[np.int64]:
    """Pair each tile with those that at least `votes` of its features point to, [P, 2].

    A tile gets at most `most` partners, those with the most votes.
    """
    tiles = len(bounds) - 1
    pairs = np.empty((tiles * most, 2), np.int64)
    size = 0
    for tile in range(tiles):
        targets = np.empty((bounds[tile + 1] - bounds[tile]) * others.shape[1], np.int64)
        filled = 0
        for row in range(bounds[tile], bounds[tile + 1]):
            mine = np.unique(others[row])
            for target in mine:
                if target >= 0 and target != first + tile:
                    targets[filled] = target
                    filled += 1
        ordered = np.sort(targets[:filled])
        names = np.empty(filled, np.int64)
        counts = np.empty(filled, np.int64)
        distinct = 0
        for k in range(filled):
            if k == 0 or ordered[k] != ordered[k - 1]:
                names[distinct] = ordered[k]
                counts[distinct] = 0
                distinct += 1
            counts[distinct - 1] += 1
        ranking = np.argsort(-counts[:distinct], kind="mergesort")
        for place in ranking[:most]:
            if counts[place] < votes:
                break
            pairs[size, 0] = first + tile
            pairs[size, 1] = names[place]
            size += 1
    return pairs[:size]
