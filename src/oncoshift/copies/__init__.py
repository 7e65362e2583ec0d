"""Copies: tiles that come from one original, found by their content and joined to one group before splitting.

`features` says what is kept of a tile, `scratch` where; `index` and `candidates` find which tiles are worth comparing,
`matching` and `registration` lay one tile on the other, `similarity` compares the two, `verification` decides, `pairs`
does it for a whole data set, `join` joins what was found, and `leaks` finds it on two sides of a split.
"""

from oncoshift.copies.join import join_groups
from oncoshift.copies.pairs import Pair, find_pairs

__all__ = ["Pair", "find_pairs", "join_groups"]
