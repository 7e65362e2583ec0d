"""The index of features: inverted lists of constant length, found by an index of their centres.

With one list per 128 features, the number of descriptors read per search does not grow with the
data set. The number of lists does; their centres are in an index of the same kind, of which a
search reads a share that falls with the square root of their number. Memory also gets slower as it
grows. In total, time grows with the number of tiles to the power of 1.2: 1.0 ms of one core per
tile among 4,000 tiles, 1.5 ms among 32,000 (`benchmarks/leaks.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from oncoshift.copies.features import DESCRIPTOR_SIZE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.copies.scratch import Scratch

_PER_LIST = 128
"""Features in a list, on average."""

_SEEN = 8
"""Features per list by which its centre is refined."""

_REFINEMENTS = 2
"""Rounds of k-means on these features. Two make the lists that a search reads a sixth shorter."""

_PROBES = 16
"""Lists read for each feature."""

_CENTRE_PROBES = 6
"""Lists of centres read to find those lists."""

_ROUNDS = 8
"""Rounds of k-means for the lists of centres; they need to be balanced, not optimal."""

_PART = 20_000
"""Tiles per part of an index in files; building a part takes 50 to 100 MB of memory."""

_BLOCK = 2048
"""Tiles added at once, so that float copies of the descriptors stay at 16 MB."""


class FeatureIndex:
    """Inverted lists around given centres, float32 [L, DESCRIPTOR_SIZE]."""

    def __init__(self, centres: NDArray[np.float32]) -> None:
        import faiss

        # Faiss holds no references to the parts of an index, so they are kept alive here.
        self._centres = centres
        self._probes = min(_PROBES, len(centres))
        self._top = faiss.IndexFlatL2(DESCRIPTOR_SIZE)
        self._quantizer = _build_quantizer(self._top, centres)
        _, above = self._top.search(centres, 1)
        self._place = np.argsort(np.argsort(above[:, 0], kind="stable"), kind="stable")
        self._kept: list[Any] = []
        self._index = self._empty()

    def fill(self, descriptors: NDArray[np.uint8], used: NDArray[np.int64]) -> None:
        """Add all features to lists in memory."""
        _add(self._index, descriptors, used, (0, len(used)), 0)

    def fill_files(self, descriptors: NDArray[np.uint8], used: NDArray[np.int64], folder: Path) -> None:
        """Add all features to lists in files, part by part; memory holds one part at a time."""
        import faiss

        lists = faiss.InvertedListsPtrVector()  # type: ignore[attr-defined]
        for start in range(0, len(used), _PART):
            part = self._empty()
            _add(part, descriptors, used, (start, min(start + _PART, len(used))), self._index.ntotal)
            self._index.ntotal += part.ntotal
            file = str(folder / f"index{start}")
            faiss.write_index(part, file)
            mapped: Any = faiss.read_index(file, faiss.IO_FLAG_MMAP)
            in_file: Any = faiss.downcast_InvertedLists(mapped.invlists)
            in_file.prefetch_nthread = 0  # threads that read lists ahead, started anew for every search
            lists.push_back(in_file)
            self._kept.append(mapped)
        stacked = faiss.HStackInvertedLists(lists.size(), lists.data())
        self._kept += [lists, stacked]
        self._index.replace_invlists(stacked, False)

    def search(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Find the `count` nearest features of each query [Q, DESCRIPTOR_SIZE].

        Returns:
            int64 [Q, count]; -1 where fewer are found.
        """
        distances, lists = self._quantizer.search(queries, self._probes)
        # Queries that read the same lists follow one another, so that the lists stay in the
        # processor's cache.
        order = np.argsort(self._place[lists[:, 0]], kind="stable")
        _, found = self._index.search_preassigned(queries[order], count, lists[order], distances[order])
        neighbours = np.empty_like(found)
        neighbours[order] = found
        return np.asarray(neighbours)

    def _empty(self) -> Any:
        import faiss

        bytes_as_they_are = faiss.ScalarQuantizer.QT_8bit_direct
        index = faiss.IndexIVFScalarQuantizer(
            self._quantizer, DESCRIPTOR_SIZE, len(self._centres), bytes_as_they_are, faiss.METRIC_L2, False
        )
        index.train(self._centres)  # a formality: the quantizer holds a centre for each list already
        index.nprobe = self._probes
        return index


def build_index(descriptors: NDArray[np.uint8], used: NDArray[np.int64], room: Scratch) -> FeatureIndex:
    """Build an index of all descriptors.

    Its `search` returns positions in `flatten_descriptors` of all tiles.

    A feature takes 40 bytes, its descriptor and an eight-byte number: 2.4 KB per tile of 60
    features, 480 MB for 200,000 tiles. In memory it is up to twice that, because lists grow by
    doubling; in files it is no more. Centres are kept twice, which takes 120 bytes per tile.
    Centres are chosen by position alone and lists keep the order of features, so searches give the
    same result in memory and in files.

    Args:
        descriptors: uint8 [N, F, DESCRIPTOR_SIZE], each tile's descriptors.
        used: int64 [N], how many of a tile's descriptors are set; not all 0.
        room: where the lists are stored.
    """
    index = FeatureIndex(_compute_centres(descriptors, used))
    if room.folder is None:
        index.fill(descriptors, used)
    else:
        index.fill_files(descriptors, used, room.folder)
    return index


def flatten_descriptors(
    descriptors: NDArray[np.uint8], used: NDArray[np.int64], start: int, stop: int
) -> NDArray[np.float32]:
    """Collect the set descriptors of tiles `start` to `stop`, float32 [N, DESCRIPTOR_SIZE]."""
    is_set = np.arange(descriptors.shape[1]) < used[start:stop, None]
    return descriptors[start:stop][is_set].astype(np.float32)


def _compute_centres(descriptors: NDArray[np.uint8], used: NDArray[np.int64]) -> NDArray[np.float32]:
    """Compute the centres of the lists, float32 [L, DESCRIPTOR_SIZE] of integers.

    K-means runs on a few features per list, which balances the lists. The features are evenly
    spaced, so that every organ is sampled even if the tiles are sorted by organ.
    """
    import faiss

    ends = np.cumsum(used)
    total = int(ends[-1])
    lists = max(1, total // _PER_LIST)
    places = np.linspace(0, total - 1, min(total, lists * _SEEN)).astype(np.int64)
    tiles = np.searchsorted(ends, places, side="right")
    seen = descriptors[tiles, places - (ends - used)[tiles]].astype(np.float32)
    centres = seen[np.linspace(0, len(seen) - 1, lists).astype(np.int64)]
    for _ in range(_REFINEMENTS):
        top = faiss.IndexFlatL2(DESCRIPTOR_SIZE)
        _, nearest = _build_quantizer(top, centres).search(seen, 1)
        centres = _compute_means(seen, nearest[:, 0], centres)
    return centres


def _compute_means(
    features: NDArray[np.float32], nearest: NDArray[np.int64], centres: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Compute the mean of each centre's features, rounded; a centre without features stays."""
    order = np.argsort(nearest, kind="stable")
    filled, starts, sizes = np.unique(nearest[order], return_index=True, return_counts=True)
    means = centres.copy()
    sums = np.add.reduceat(features[order], starts, axis=0)  # integers, so exact
    means[filled] = np.rint(sums / sizes[:, None])
    return means


def _build_quantizer(top: Any, centres: NDArray[np.float32]) -> Any:
    import faiss

    lists = max(1, int(np.sqrt(len(centres))))
    quantizer = faiss.IndexIVFFlat(top, DESCRIPTOR_SIZE, lists)
    quantizer.cp.seed = 0
    quantizer.cp.niter = _ROUNDS
    quantizer.cp.int_centroids = True
    quantizer.cp.min_points_per_centroid = 1
    quantizer.nprobe = _CENTRE_PROBES
    quantizer.train(centres)
    quantizer.add(centres)
    return quantizer


def _add(
    index: Any, descriptors: NDArray[np.uint8], used: NDArray[np.int64], tiles: tuple[int, int], first: int
) -> None:
    """Add the features of the tiles from one position to another, numbered from `first` on."""
    for start in range(*tiles, _BLOCK):
        part = flatten_descriptors(descriptors, used, start, min(start + _BLOCK, tiles[1]))
        if len(part):
            index.add_with_ids(part, np.arange(first, first + len(part), dtype=np.int64))
            first += len(part)
