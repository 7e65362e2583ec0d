"""Warnings about groups: very large ones after joining, and those with nearly the same name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from oncoshift.data.names import fold_name

if TYPE_CHECKING:
    from collections.abc import Sequence

_GIANT_TILES = 20
_GIANT_SHARE = 0.05
"""Share of all tiles; no original is that frequent in a data set that is worth splitting."""

_SHOWN = 5


def warn_of_large_groups(joined: Sequence[str], before: Sequence[str] | None = None) -> list[str]:
    """Warn of joined groups so large that a chain of false pairs may have made them.

    Args:
        joined: the group of each tile.
        before: its group before joining; None if each tile was its own. A group that was already
            large is no reason for a warning.

    Returns:
        A message for each group of more than 20 tiles and more than 5 % of all, the largest first.
    """
    sizes = Counter(joined)
    parts = Counter(
        whole for whole, _ in set(zip(joined, range(len(joined)) if before is None else before, strict=True))
    )
    return [
        f"group {name} holds {size} of {len(joined)} tiles ({size / len(joined):.0%}), joined from {parts[name]} "
        "groups: look at some of them before you trust it"
        for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
        if size > _GIANT_TILES and size > _GIANT_SHARE * len(joined) and parts[name] > 1
    ]


def warn_of_similar_names(joined: Sequence[str], before: Sequence[str]) -> list[str]:
    """Warn of groups whose names differ only by case or blanks and may be one patient.

    Args:
        joined: the group of each tile.
        before: its group before joining; groups that were joined need no warning.
    """
    alike: dict[str, dict[str, str]] = {}
    for whole, name in sorted(set(zip(joined, before, strict=True))):
        alike.setdefault(fold_name(name), {})[name] = whole
    apart = [names for names in alike.values() if len(set(names.values())) > 1]
    if not apart:
        return []
    named = "; ".join(" and ".join(map(repr, sorted(names))) for names in apart[:_SHOWN])
    more = f"; and {len(apart) - _SHOWN} more" if len(apart) > _SHOWN else ""
    return [f"groups that differ only by case or blanks are kept apart; rename those that are one: {named}{more}"]
