"""Tiles that come from one original although their names do not tell; see `oncoshift.copies`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from oncoshift.data.tables import UNKNOWN
from oncoshift.parallel import ignore_progress
from oncoshift.serving.images import UnreadableImageError, decode, read_image_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from oncoshift.data.source.adapters.base import RawTile
    from oncoshift.data.validation.inspection import Inspected
    from oncoshift.parallel import Phases

_SHOWN = 5
_NOTHING = np.full((1, 1, 3), 255, np.uint8)
"""A blank tile, which is no copy of any other."""


class NearDuplicates(NamedTuple):
    """Two tiles that come from one original, and their similarity, up to 1."""

    first: RawTile
    second: RawTile
    score: float

    @property
    def groups(self) -> tuple[str, str]:
        """The groups of both tiles, which have to be joined."""
        return self.first.group, self.second.group


def find_near_duplicates(
    inspected: Sequence[Inspected], phases: Phases = ignore_progress
) -> tuple[list[NearDuplicates], list[RawTile]]:
    """Find pairs among the sound tiles that link all tiles of one original.

    Every sound tile's file is opened a second time. A file that disappeared or changed since it was
    inspected is not in any pair.

    Returns:
        The pairs, and the tiles whose files disappeared or changed; both in the tiles' order.
    """
    from oncoshift.copies import find_pairs  # compiled code, which other adapters' errors need not wait for

    sound = [one for one in inspected if one.fault is None]
    changed: set[int] = set()

    def read(row: int) -> NDArray[np.uint8]:
        image = _read_unchanged(sound[row])
        if image is None:
            changed.add(row)
        return _NOTHING if image is None else image

    pairs = [
        NearDuplicates(sound[pair.first].tile, sound[pair.second].tile, pair.score)
        for pair in find_pairs(read, len(sound), phases)
    ]
    return pairs, [sound[row].tile for row in sorted(changed)]


def _read_unchanged(one: Inspected) -> NDArray[np.uint8] | None:
    """Read a tile's pixels, RGB uint8 [H, W, 3]; None if its file changed since the inspection."""
    try:
        data = read_image_file(one.tile.path)
        return decode(data) if hashlib.sha256(data).hexdigest() == one.sha256 else None
    except UnreadableImageError:
        return None


def tabulate_near_duplicates(pairs: Sequence[NearDuplicates]) -> pd.DataFrame:
    """Tabulate the pairs: tile_id of both, and the score."""
    rows = [(pair.first.tile_id, pair.second.tile_id, pair.score) for pair in pairs]
    table = pd.DataFrame(rows, columns=["first", "second", "score"])
    return table.astype({"first": "str", "second": "str", "score": "float64"})


def warn_of_changed_files(tiles: Sequence[RawTile]) -> list[str]:
    """Warn of files that disappeared or changed during the checks."""
    if not tiles:
        return []
    named = ", ".join(tile.tile_id for tile in tiles[:_SHOWN])
    more = f" and {len(tiles) - _SHOWN} more" if len(tiles) > _SHOWN else ""
    return [f"files changed or disappeared while ingest ran; run it again: {named}{more}"]


def warn_of_contradictions(pairs: Sequence[NearDuplicates]) -> list[str]:
    """Warn of tiles of one original that have different organs or labels."""
    wrong = [
        f"{pair.first.tile_id} and {pair.second.tile_id}"
        for pair in pairs
        if pair.first.organ != pair.second.organ
        or (UNKNOWN not in (pair.first.label, pair.second.label) and pair.first.label != pair.second.label)
    ]
    if not wrong:
        return []
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return [f"one original, but different organs or labels: {'; '.join(wrong[:_SHOWN])}{more}"]
