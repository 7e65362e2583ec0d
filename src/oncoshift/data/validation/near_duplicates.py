"""Tiles of a data set that come from one original although no file says so; see `oncoshift.data.leaks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from oncoshift.data.adapters.base import UNKNOWN
from oncoshift.serving.images import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.data.adapters.base import RawTile
    from oncoshift.data.parallel import Progress
    from oncoshift.data.validation.inspection import Inspected

_SHOWN = 5


class NearDuplicates(NamedTuple):
    """Two tiles that come from one original, and how well they agree, up to 1."""

    first: RawTile
    second: RawTile
    score: float

    @property
    def groups(self) -> tuple[str, str]:
        """The groups of both, which are one."""
        return self.first.group, self.second.group


def find_near_duplicates(inspected: Sequence[Inspected], progress: Progress | None = None) -> list[NearDuplicates]:
    """Pairs among the sound tiles that link all tiles of one original, in the tiles' order."""
    from oncoshift.data.leaks import find_pairs  # compiled code, which other adapters' errors need not wait for

    tiles = [one.tile for one in inspected if one.fault is None]
    pairs = find_pairs(lambda row: decode(tiles[row].path.read_bytes()), len(tiles), progress)
    return [NearDuplicates(tiles[pair.first], tiles[pair.second], pair.score) for pair in pairs]


def near_duplicates_table(pairs: Sequence[NearDuplicates]) -> pd.DataFrame:
    """A row a pair: tile_id of both, and the score."""
    rows = [(pair.first.tile_id, pair.second.tile_id, pair.score) for pair in pairs]
    table = pd.DataFrame(rows, columns=["first", "second", "score"])
    return table.astype({"first": "str", "second": "str", "score": "float64"})


def contradictions(pairs: Sequence[NearDuplicates]) -> list[str]:
    """A warning where tiles of one original have different organs or labels."""
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
