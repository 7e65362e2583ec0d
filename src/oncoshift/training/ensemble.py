"""The figures of an ensemble's epochs, averaged over its members."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ADDED = "epoch_seconds"
_LATEST = "timestamp_ms"


def average_histories(histories: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Average the members' figures of each epoch, but sum seconds and take the latest end.

    Args:
        histories: the rows of each member, equal in length and names.
    """
    rows = []
    for epoch in zip(*histories, strict=True):
        row = {name: sum(member[name] for member in epoch) / len(epoch) for name in epoch[0]}
        row[_ADDED] = sum(member[_ADDED] for member in epoch)
        row[_LATEST] = max(member[_LATEST] for member in epoch)
        rows.append(row)
    return rows
