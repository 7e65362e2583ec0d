"""The tiles to explain: of both predicted classes, from many groups, chosen without labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pick_tiles(
    tile_ids: NDArray[np.str_],
    probabilities: NDArray[np.float64],
    groups: NDArray[np.str_],
    count: int,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Pick tiles, half of each predicted class where possible, from as many groups as possible.

    The order follows a hash of tile id and seed, so it does not depend on the order of the tiles,
    and most of the choice stays when tiles are added.

    Args:
        tile_ids: [N], unique.
        probabilities: of malignant, [N] in [0, 1]; the predicted class is malignant from 0.5 on.
        groups: [N].
        count: how many to pick; all tiles if there are fewer.
        seed: of the choice.

    Returns:
        int64 [min(count, N)], indices: tiles called benign first, then malignant, each in the order
        of choice.

    Raises:
        DataError: shapes differ or ids are not unique.
    """
    if not tile_ids.shape == probabilities.shape == groups.shape or tile_ids.ndim != 1:
        raise DataError(f"expected three [N], got {tile_ids.shape}, {probabilities.shape}, {groups.shape}")
    if len(np.unique(tile_ids)) != len(tile_ids):
        raise DataError("tile ids are not unique; pick from one seed's predictions of one split")
    called = probabilities >= 0.5
    benign = _take_in_turns(np.flatnonzero(~called), tile_ids, groups, seed)
    malignant = _take_in_turns(np.flatnonzero(called), tile_ids, groups, seed)
    from_benign = min(len(benign), max(count - count // 2, count - len(malignant)))
    return np.array(benign[:from_benign] + malignant[: count - from_benign], dtype=np.int64)


def spread_out(count: int, wanted: int) -> NDArray[np.int64]:
    """Pick positions that are spread evenly over `count`, so over both classes of `pick_tiles`."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))


def _take_in_turns(
    candidates: NDArray[np.int64], tile_ids: NDArray[np.str_], groups: NDArray[np.str_], seed: int
) -> list[int]:
    """Order candidates: one of every group, then a second of every group, and so on."""
    turns: Counter[str] = Counter()
    ranked: list[tuple[int, str, int]] = []
    for index in sorted(candidates.tolist(), key=lambda one: _compute_key(seed, str(tile_ids[one]))):
        group = str(groups[index])
        ranked.append((turns[group], _compute_key(seed, group), index))
        turns[group] += 1
    return [index for _, _, index in sorted(ranked)]


def _compute_key(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
