"""Which tiles are worth comparing: those whose features are near neighbours in an inverted-file index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from oncoshift.data.leaks.descriptor import CODE
from oncoshift.serving.stain.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_NEIGHBOURS = 12
"""Neighbours of each feature, itself among them. Copies are joined transitively, so not all need be found."""

_VOTES = 2
"""Features of a tile that must point to the other one. On LC25000 that keeps 95 of 100 pairs of copies;
most of the others are linked through a third copy."""

_MOST = 32
"""Candidates of a tile at most, the ones with most votes; so the work grows with the tiles, not with their pairs."""

_PROBES = 8
"""Lists of the index that are searched for each feature."""

_PER_LIST = 40
"""Training codes for each list's centre; faiss advises at least 39."""

_ROUNDS = 8
"""Rounds of k-means; the lists need to be balanced, not optimal."""

_BLOCK = 2048
"""Tiles searched at once, so that float copies of the codes stay at 16 MB."""


def candidates(codes: NDArray[np.uint8], used: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of tiles that share neighbouring features.

    Work is one search a feature in an index with about 2√N lists for N features, of which a fixed number is read:
    0.9 ms of a core a tile for 4,000 tiles, 1.4 ms for 16,000. What is done with the tiles themselves takes longer.
    All numbers are integers below 2²⁴, which float32 sums exactly in any order, so threads do not change the result.

    Args:
        codes: uint8 [N, F, CODE], each tile's codes.
        used: int64 [N], how many of a tile's codes are set.

    Returns:
        int64 [P, 2] of positions, first < second, sorted.
    """
    tile_of = np.repeat(np.arange(len(used), dtype=np.int64), used)
    if len(tile_of) < _NEIGHBOURS or len(used) < 2:
        few = np.array([(i, j) for i in range(len(used)) for j in range(i + 1, len(used))], dtype=np.int64)
        return few.reshape(-1, 2)
    index = _index(codes, used, len(tile_of))
    found = []
    for start, stop in _blocks(len(used)):
        queries = _flat(codes, used, start, stop)
        if len(queries) == 0:
            continue
        _, neighbours = index.search(queries, _NEIGHBOURS)
        others = np.where(neighbours >= 0, tile_of[neighbours], -1)
        bounds = np.concatenate(([0], np.cumsum(used[start:stop])))
        found.append(_count(others, bounds, start, _VOTES, _MOST))
    pairs = np.concatenate(found)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _BLOCK):
        yield start, min(start + _BLOCK, count)


def _flat(codes: NDArray[np.uint8], used: NDArray[np.int64], start: int, stop: int) -> NDArray[np.float32]:
    is_set = np.arange(codes.shape[1]) < used[start:stop, None]
    return codes[start:stop][is_set].astype(np.float32)


def _index(codes: NDArray[np.uint8], used: NDArray[np.int64], total: int) -> Any:
    import faiss

    lists = max(1, min(int(2 * np.sqrt(total)), total // _PER_LIST))
    quantizer = faiss.IndexFlatL2(CODE)
    bytes_as_they_are = faiss.ScalarQuantizer.QT_8bit_direct
    index = faiss.IndexIVFScalarQuantizer(quantizer, CODE, lists, bytes_as_they_are, faiss.METRIC_L2, False)
    index.cp.seed = 0
    index.cp.niter = _ROUNDS
    index.cp.int_centroids = True
    index.cp.min_points_per_centroid = 1
    index.nprobe = _PROBES
    # Evenly spaced tiles, so that organs that lie one after the other are all seen.
    tiles = np.unique(np.linspace(0, len(used) - 1, min(len(used), 1 + len(used) * lists * _PER_LIST // total)))
    chosen = np.rint(tiles).astype(np.int64)
    index.train(np.concatenate([_flat(codes, used, tile, tile + 1) for tile in chosen]))
    for start, stop in _blocks(len(used)):
        part = _flat(codes, used, start, stop)
        if len(part):
            index.add(part)
    return index


@compiled
def _count(
    others: NDArray[np.int64], bounds: NDArray[np.int64], first: int, votes: int, most: int
) -> NDArray[np.int64]:
    """Pairs [P, 2] of each tile with those that at least `votes` of its features point to, at most `most` a tile."""
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
