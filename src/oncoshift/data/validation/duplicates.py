"""Byte-identical tiles: one is kept, their groups are joined, and contradictions are refused."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from oncoshift.data.tables import LABELS, UNKNOWN
from oncoshift.data.validation.checks import Fault
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oncoshift.data.source.adapters.base import RawTile
    from oncoshift.data.validation.inspection import Inspected

_SHOWN = 5


def mark_duplicates(inspected: Sequence[Inspected]) -> list[Inspected]:
    """Mark all but one of the tiles with the same bytes as `duplicate`, in the same order.

    The tile that is kept has a label, if any of them has, and is the first by tile_id. Tiles with a
    fault are ignored.

    Raises:
        DataError: the same bytes are in two organs, or both benign and malignant.
    """
    kept: dict[str, RawTile] = {}
    for members in _find_copies(inspected).values():
        first = min(members, key=lambda tile: (tile.label == UNKNOWN, tile.tile_id))
        kept |= {tile.tile_id: first for tile in members}
    _refuse_contradictions(inspected)
    return [_mark(one, kept.get(one.tile.tile_id)) for one in inspected]


def list_identical_groups(inspected: Sequence[Inspected]) -> list[list[str]]:
    """List the groups that contain the same bytes and have to be joined.

    Call it with the tiles given to `mark_duplicates`.
    """
    return [[tile.group for tile in members] for members in _find_copies(inspected).values()]


def rename_groups(inspected: Sequence[Inspected], names: dict[str, str]) -> list[Inspected]:
    """Rename the groups of tiles; see `disjoint_sets.merged_names`."""
    return [
        replace(one, tile=replace(one.tile, group=names[one.tile.group])) if one.tile.group in names else one
        for one in inspected
    ]


def _find_copies(inspected: Iterable[Inspected]) -> dict[str, list[RawTile]]:
    """Find sound tiles that share a digest, by digest."""
    by_digest: defaultdict[str, list[RawTile]] = defaultdict(list)
    for one in inspected:
        if one.fault is None and one.sha256 is not None:
            by_digest[one.sha256].append(one.tile)
    return {digest: tiles for digest, tiles in by_digest.items() if len(tiles) > 1}


def _mark(one: Inspected, kept: RawTile | None) -> Inspected:
    if one.fault is not None or kept is None or kept.tile_id == one.tile.tile_id:
        return one
    return replace(one, fault=Fault("duplicate", f"the same bytes as {kept.tile_id}, which is kept"))


def _refuse_contradictions(inspected: Sequence[Inspected]) -> None:
    pairs = []
    for members in _find_copies(inspected).values():
        labelled = [tile for tile in members if tile.label != UNKNOWN]
        pairs += [(members[0], tile) for tile in members if tile.organ != members[0].organ]
        pairs += [(labelled[0], tile) for tile in labelled[1:] if tile.label != labelled[0].label]
    if not pairs:
        return
    pairs = list(dict.fromkeys(pairs))
    lines = [f"{_describe(one)} = {_describe(other)}" for one, other in pairs[:_SHOWN]]
    more = [f"… and {len(pairs) - _SHOWN} more"] if len(pairs) > _SHOWN else []
    raise DataError(
        "\n".join(
            [
                f"{len(pairs)} pairs of tiles have the same bytes and contradict each other in organ or label:",
                *lines,
                *more,
                "find out which is right, and remove the other or correct its organ or label",
            ]
        )
    )


def _describe(tile: RawTile) -> str:
    label = LABELS[tile.label] if tile.label != UNKNOWN else "unknown"
    return f"{tile.tile_id} ({tile.organ}, {label})"
