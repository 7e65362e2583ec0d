"""Copies: tiles of one original, found by their content and joined into one group before splitting.

`features` extracts what is kept of a tile and `scratch` stores it. `index` and `candidates` pick
the tiles worth comparing, `matching` and `registration` align two of them, `similarity` compares
the aligned tiles, and `verification` decides. `pairs` runs this for a whole data set, `join` joins
the groups, and `leaks` finds copies on two sides of a split.
"""

from oncoshift.copies.join import Pair, join_groups
from oncoshift.copies.pairs import find_pairs

__all__ = ["Pair", "find_pairs", "join_groups"]
