"""Groups that turn out to be one: disjoint sets, the name that they then share, and a look at how large they got."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

from oncoshift.data.names import likeness

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GIANT_TILES = 20
_GIANT_SHARE = 0.05
"""Of all tiles; no original is that frequent in a data set that is worth splitting."""

_SHOWN = 5


class Forest:
    """Disjoint sets of the positions 0 … count - 1; each is named by its smallest position."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, position: int) -> int:
        """The smallest position of the set."""
        root = position
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[position] != root:
            self._parent[position], position = root, self._parent[position]
        return root

    def join(self, first: int, second: int) -> None:
        """Make the sets of two positions one."""
        one, other = self.find(first), self.find(second)
        self._parent[max(one, other)] = min(one, other)

    def roots(self) -> list[int]:
        """For each position the smallest one of its set."""
        return [self.find(position) for position in range(len(self._parent))]


def merged_names(together: Iterable[Sequence[str]]) -> dict[str, str]:
    """Join groups that belong together, also by way of others.

    Args:
        together: lists of groups that are one.

    Returns:
        Each group that is joined to another → the first by name of those that it is joined with, sorted by name.
    """
    lists = [tuple(members) for members in together]
    names = sorted(set(chain.from_iterable(lists)))
    number = {name: position for position, name in enumerate(names)}
    forest = Forest(len(names))
    for first, *others in lists:
        for other in others:
            forest.join(number[first], number[other])
    # Names are sorted, so the smallest position of a set is the first name.
    whole = {name: names[forest.find(position)] for position, name in enumerate(names)}
    joined = {root for name, root in whole.items() if name != root}
    return {name: root for name, root in whole.items() if root in joined}


def giants(joined: Sequence[str], before: Sequence[str] | None = None) -> list[str]:
    """Warn of joined groups so large that a chain of false pairs may have made them.

    Args:
        joined: the group of each tile.
        before: its group before groups were joined; None where each tile was its own. A group that is large without
            having been joined is no cause for a warning.

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


def lookalikes(joined: Sequence[str], before: Sequence[str]) -> list[str]:
    """Warn of groups whose names differ by case or blanks alone: they may be one patient, on two sides of a split.

    Args:
        joined: the group of each tile.
        before: its group before groups were joined; those that have become one are none to warn of.
    """
    alike: dict[str, dict[str, str]] = {}
    for whole, name in sorted(set(zip(joined, before, strict=True))):
        alike.setdefault(likeness(name), {})[name] = whole
    apart = [names for names in alike.values() if len(set(names.values())) > 1]
    if not apart:
        return []
    named = "; ".join(" and ".join(map(repr, sorted(names))) for names in apart[:_SHOWN])
    more = f"; and {len(apart) - _SHOWN} more" if len(apart) > _SHOWN else ""
    return [f"groups that differ by case or blanks alone are kept apart; rename those that are one: {named}{more}"]
