"""Disjoint sets (union-find), and group names merged with them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Forest:
    """Disjoint sets of the positions 0 … count - 1; each is named by its smallest position."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, position: int) -> int:
        """Return the smallest position of the set."""
        root = position
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[position] != root:
            self._parent[position], position = root, self._parent[position]
        return root

    def join(self, first: int, second: int) -> None:
        """Merge the sets of two positions."""
        one, other = self.find(first), self.find(second)
        self._parent[max(one, other)] = min(one, other)

    def find_roots(self) -> list[int]:
        """Return, for each position, the smallest position of its set."""
        return [self.find(position) for position in range(len(self._parent))]


def merge_names(together: Iterable[Sequence[str]]) -> dict[str, str]:
    """Merge groups that belong together, directly or through others.

    Args:
        together: lists of groups to merge.

    Returns:
        Each merged group → the alphabetically first of the groups it is merged with; sorted by
        name.
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
