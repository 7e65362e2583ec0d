"""The search for pairs of tiles of a data set that are copies of one original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.copies.candidates import find_candidates
from oncoshift.copies.features import DESCRIPTOR_SIZE, FEATURES, THUMBNAIL, extract_features
from oncoshift.copies.join import STRONG, Pair, drop_weak_pairs
from oncoshift.copies.scratch import open_scratch
from oncoshift.copies.verification import verify_pair
from oncoshift.parallel import ignore_progress, map_in_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from oncoshift.copies.scratch import Scratch
    from oncoshift.copies.verification import Match
    from oncoshift.parallel import Phases, Progress

_BLOCK = 512
"""Candidates that a thread compares at a time; small enough for the progress bar to move."""


def find_pairs(read: Callable[[int], NDArray[np.uint8]], count: int, phases: Phases = ignore_progress) -> list[Pair]:
    """Find tiles that are copies of one original.

    Copies may be rotated, mirrored, zoomed, cropped, recoloured or encoded again. Of a large set of
    copies not every pair is listed, but the pairs link all of them. Featureless tiles are never
    paired, and neither are fields that merely overlap. The result does not depend on the number of
    threads.

    Each tile is read once and its pixels are not kept. Features take 6.5 KB per tile and the index
    2.5 to 5 KB. Up to `scratch.MANY` tiles they are in memory; beyond that, in files below TMPDIR
    (9 KB per tile), which the system caches as memory allows and which are deleted at the end.
    Pairs and digests then still take 1 to 2 KB of memory per tile.

    Args:
        read: returns a tile's pixels by position, RGB uint8 [H, W, 3] of any size; called from
            several threads.
        count: number of tiles.
        phases: progress of `describing` and of `comparing`, each counting tiles done and in total.

    Returns:
        The pairs, sorted by their positions.
    """
    with open_scratch(count) as room:
        kept = _describe_all(read, count, room, phases("describing"))
        pairs, inliers = _compare_candidates(kept, room, phases("comparing"))
    return sorted(drop_weak_pairs(count, pairs, inliers), key=lambda pair: (pair.first, pair.second))


def _compare_candidates(kept: _Features, room: Scratch, progress: Progress) -> tuple[list[Pair], list[int]]:
    """Compare the candidates; return the pairs found, and how many features agree on each."""
    copies = _pair_equal(kept.digests)
    count = len(kept.digests)
    # Of identical tiles only the first is compared: a hundred of them would fill each other's
    # neighbour lists and hide the rest.
    used = kept.used.copy()
    used[[pair.second for pair in copies]] = 0
    chosen = find_candidates(kept.descriptors, used, room)
    blocks = [chosen[start : start + _BLOCK] for start in range(0, len(chosen), _BLOCK)]

    def compare_block(block: NDArray[np.int64]) -> list[tuple[Pair, int]]:
        matched = ((i, j, kept.verify(i, j)) for i, j in block.tolist())
        return [(Pair(i, j, match.score), match.inliers) for i, j, match in matched if match is not None]

    def in_tiles(done: int, total: int) -> None:
        progress(count * done // total, count)

    found = [item for block in map_in_order(compare_block, blocks, in_tiles) for item in block]
    pairs = [*copies, *(pair for pair, _ in found)]
    return pairs, [*(STRONG for _ in copies), *(features for _, features in found)]


@dataclass(frozen=True)
class _Features:
    descriptors: NDArray[np.uint8]
    keypoints: NDArray[np.float16]
    used: NDArray[np.int64]
    thumbnails: NDArray[np.int8]
    digests: list[bytes]

    def verify(self, first: int, second: int) -> Match | None:
        one, other = self.used[first], self.used[second]
        return verify_pair(
            (self.descriptors[first, :one], self.descriptors[second, :other]),
            (self.keypoints[first, :one], self.keypoints[second, :other]),
            (self.thumbnails[first], self.thumbnails[second]),
        )


def _describe_all(read: Callable[[int], NDArray[np.uint8]], count: int, room: Scratch, progress: Progress) -> _Features:
    descriptors = room.zeros((count, FEATURES, DESCRIPTOR_SIZE), np.uint8)
    keypoints = room.zeros((count, FEATURES, 4), np.float16)
    used = np.zeros(count, np.int64)
    thumbnails = room.zeros((count, THUMBNAIL, THUMBNAIL), np.int8)

    def keep(position: int) -> bytes:
        seen = extract_features(read(position))
        descriptors[position], keypoints[position] = seen.descriptors, seen.keypoints
        used[position], thumbnails[position] = seen.used, seen.thumbnail
        return seen.digest

    return _Features(descriptors, keypoints, used, thumbnails, map_in_order(keep, range(count), progress))


def _pair_equal(digests: list[bytes]) -> list[Pair]:
    """Pair each tile with the first one that has equal pixels."""
    first: dict[bytes, int] = {}
    pairs = []
    for position, digest in enumerate(digests):
        if digest and digest in first:
            pairs.append(Pair(first[digest], position, 1.0))
        else:
            first.setdefault(digest, position)
    return pairs
