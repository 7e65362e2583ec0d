"""Leaks: tiles that are copies of one original, found by their content and joined to one group before splitting.

`descriptor` says what is kept of a tile, `candidates` which tiles are worth comparing, `matching` and `alignment` lay
one tile on the other, `verify` decides, `pairs` does it for a whole data set, and `groups` joins what was found.
"""

from oncoshift.data.leaks.groups import join_groups
from oncoshift.data.leaks.pairs import Pair, find_pairs

__all__ = ["Pair", "find_pairs", "join_groups"]
