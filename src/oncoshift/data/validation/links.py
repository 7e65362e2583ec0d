"""Checks of symbolic links among tiles.

Links within the data set are allowed, and so are DVC's links into its cache (`cache.type symlink`).
A link to a folder, such as the root or an organ's, is part of the layout: it is followed wherever
it leads, and reported. Any other link to a file outside of the data set is refused, because that
file is not versioned and shared with the data.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.data.source.adapters.base import RawTile

_CACHED = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}")
"""The end of a path in DVC's cache: the file's MD5."""

_SHOWN = 5


def find_outside_target(root: Path, file: Path) -> Path | None:
    """Find the target of a linked file if it is neither in the data set nor in DVC's cache.

    Args:
        root: the data set.
        file: a tile in it, or in a folder linked from it.
    """
    if not file.is_symlink():
        return None
    target = Path(os.path.realpath(file))
    inside = any(target.is_relative_to(os.path.realpath(place)) for place in (root, file.parent))
    return None if inside or _CACHED.fullmatch("/".join(target.parts[-2:])) else target


def warn_of_linked_folders(root: Path, tiles: Sequence[RawTile]) -> list[str]:
    """Warn of tiles in linked folders outside of the data set.

    Tiles that an adapter extracted elsewhere do not count.
    """
    inside = os.path.realpath(root)
    counts = Counter(tile.path.parent for tile in tiles)
    targets = {folder: Path(os.path.realpath(folder)) for folder in sorted(counts)}
    within = {folder: target for folder, target in targets.items() if folder.is_relative_to(root)}
    outside = [folder for folder, target in within.items() if not target.is_relative_to(inside)]
    if not outside:
        return []
    named = [f"{folder} → {targets[folder]}" for folder in outside[:_SHOWN]]
    more = f" and {len(outside) - _SHOWN} more folders" if len(outside) > _SHOWN else ""
    total = sum(counts[folder] for folder in outside)
    return [f"{total} tiles are outside of ingest.root, in linked folders: {', '.join(named)}{more}"]
