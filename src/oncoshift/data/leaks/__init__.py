"""Leaks: tiles that are copies of one original, found by their content and joined to one group before splitting.

`descriptor` says what is kept of a tile, `scratch` where; `index` and `candidates` find which tiles are worth
comparing, `matching` and `alignment` lay one tile on the other, `verify` decides, `pairs` does it for a whole data set,
`groups` joins what was found, and `audit` finds it on two sides of a split.
"""

from oncoshift.data.leaks.groups import join_groups
from oncoshift.data.leaks.pairs import Pair, find_pairs

__all__ = ["Pair", "find_pairs", "join_groups"]
