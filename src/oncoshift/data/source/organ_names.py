"""The check of organ names before any tile is opened: params.yaml must be able to name each."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from oncoshift.data.tables import ORGAN
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.data.source.adapters.base import RawTile

_SHOWN = 5


def check_organs(adapter: str, tiles: Sequence[RawTile]) -> None:
    """Refuse organs with names that `target` and `sources` cannot be.

    Args:
        adapter: its name, which determines where the organ is written.
        tiles: as listed by the adapter, organs in lower case.

    Raises:
        DataError: names each such organ, its number of tiles, and what to rename.
    """
    wrong: defaultdict[str, list[RawTile]] = defaultdict(list)
    for tile in tiles:
        if re.fullmatch(ORGAN, tile.organ) is None:
            wrong[tile.organ].append(tile)
    if not wrong:
        return
    lines = [f"{organ!r}: {len(of_organ)} tiles{_advise(adapter, of_organ[0])}" for organ, of_organ in wrong.items()]
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    rule = f"{len(lines)} organs have names that are not allowed; a name matches {ORGAN}, as in params.yaml"
    raise DataError("\n".join([rule, *lines[:_SHOWN], *more]))


def _advise(adapter: str, tile: RawTile) -> str:
    """Say where a name is written and what could replace it."""
    place = "correct column organ" if adapter == "manifest" else "rename the folder"
    better = re.sub(r"[^a-z0-9_-]+", "_", tile.organ).strip("_-")
    proposal = f", for example to {better}" if re.fullmatch(ORGAN, better) else ""
    return f", the first is {tile.tile_id}; {place}{proposal}"
