"""A batch of new tiles without labels: those that are looked at, and their groups.

Groups are those of a CSV's column `group`. In folders and archives a file named
`<group>_<number>.<suffix>` belongs to `<group>`, as in a data set. If any tile has no group, the
groups count as unknown, and the whole batch as one group: tiles of one patient resemble one
another, so tiles that counted by themselves would raise false alarms.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.data.source.adapters.folder import parse_group
from oncoshift.scoring.inputs import Tile, TileInput
from oncoshift.serving.limits import UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """The tiles of a batch that are looked at.

    Attributes:
        source: folder, CSV or archive.
        total: number of its tiles.
        tiles: those that are looked at, with their bytes.
        groups: number of each one's group, [N]; all are 0 where groups are unknown.
        groups_known: whether groups are known.
        digest: SHA-256 of names, groups and bytes of these tiles, and of `total`.
    """

    source: Path
    total: int
    tiles: tuple[Tile, ...]
    groups: NDArray[np.int64]
    groups_known: bool
    digest: str


def read_batch(source: Path, most: int) -> Batch:
    """Read a batch, or evenly many tiles of each of its groups.

    Which tiles of a group are read depends on the hash of their names alone.

    Args:
        source: a folder, a CSV or an archive; see `TileInput`.
        most: largest number of tiles to read.

    Raises:
        DataError: the input cannot be read, or has no tiles.
    """
    tiles = TileInput(source)
    total = tiles.count()
    groups = {tile.name: find_group(tile) for tile in tiles.list_tiles()}
    known = None not in groups.values()
    chosen = _choose(groups, most)
    read = tuple(_load(tile) for tile in tiles.read(frozenset(groups) - chosen))
    names = [groups[tile.name] if known else "" for tile in read]
    digest = hashlib.sha256(f"{total}".encode())
    for tile, group in sorted(zip(read, names, strict=True), key=lambda each: each[0].name):
        digest.update(f"\n{tile.name}\0{group}\0{_hash(tile)}".encode())
    return Batch(source, total, read, np.unique(np.array(names), return_inverse=True)[1], known, digest.hexdigest())


def find_group(tile: Tile) -> str | None:
    """Find a tile's group, or None if neither the input nor the tile's name tells it."""
    stem = PurePosixPath(tile.name).stem
    group = tile.group or parse_group(stem)
    return group if tile.group or group != stem else None


def _choose(groups: dict[str, str | None], most: int) -> frozenset[str]:
    """Choose one tile of each group after the other, until there are enough."""
    members: dict[str | None, list[str]] = defaultdict(list)
    for name in sorted(groups, key=_hash_text):
        members[groups[name]].append(name)
    rounds: Iterable[str | None] = chain.from_iterable(zip_longest(*members.values()))
    return frozenset(islice((name for name in rounds if name is not None), most))


def _load(tile: Tile) -> Tile:
    """Read the bytes of a tile, or the reason why there are none."""
    content: bytes | UnreadableImageError
    try:
        content = tile.read()
    except UnreadableImageError as error:
        content = error
    return Tile(tile.name, content, tile.group, tile.um_per_pixel)


def _hash(tile: Tile) -> str:
    return hashlib.sha256(tile.content).hexdigest() if isinstance(tile.content, bytes) else "unreadable"


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
