"""Shards: files with some tiles of a pack, written once, named by their checksum and memory-mapped.

A shard is `<plan>-<checksum>.npy`, uint8 [n, S, S, 3]. `plan` is the hash of its intended content,
`checksum` the XXH3 of the file's bytes. So a resumed run finds the shards it finished, and damage
shows as a wrong name. Each process checks a shard when it first reads from it.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, overload

import numpy as np
import xxhash

from oncoshift.errors import DataError
from oncoshift.files import xxh3_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


def write_shard(folder: Path, plan: str, tiles: Iterable[NDArray[np.uint8]], count: int, side: int) -> str:
    """Write a shard atomically, holding one tile at a time in memory.

    Args:
        folder: of the shards.
        plan: hash of the intended content.
        tiles: `count` tiles uint8 [side, side, 3].
        count: how many tiles.
        side: side of a tile, pixels.

    Returns:
        The file's name.

    Raises:
        ValueError: there are more or fewer tiles, or one has another shape or type.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{plan}.{os.getpid()}.tmp"
    checksum = xxhash.xxh3_128()
    written = 0
    try:
        with temporary.open("wb+") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            file.seek(0)
            checksum.update(file.read())
            for tile in tiles:
                if tile.shape != (side, side, 3) or tile.dtype != np.uint8:
                    raise ValueError(f"tile {written} of shard {plan} is {tile.dtype} {tile.shape}, not {side}²")
                data = np.ascontiguousarray(tile).data
                checksum.update(data)
                file.write(data)
                written += 1
            if written != count:
                raise ValueError(f"shard {plan} got {written} tiles and was to have {count}")
            file.flush()
            os.fsync(file.fileno())
        name = f"{plan}-{checksum.hexdigest()}.npy"
        temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    return name


def is_whole(path: Path) -> bool:
    """Whether the file exists and its bytes match the checksum in its name."""
    try:
        return _has_checksum(path)
    except OSError:
        return False


@cache
def _is_whole(path: Path, size: int, modified: int) -> bool:  # noqa: ARG001 - a file made anew is another
    """Whether a shard matches its checksum, computed once per process; raises if unreadable."""
    return _has_checksum(path)


def _has_checksum(path: Path) -> bool:
    return path.stem.rpartition("-")[2] == xxh3_file(path).hexdigest()


def find_shard(folder: Path, plan: str) -> str | None:
    """Find an intact shard that an earlier run made of this plan, and remove damaged ones."""
    for path in sorted(folder.glob(f"{plan}-*.npy")):
        if is_whole(path):
            return path.name
        path.unlink()
    return None


class ShardedImages:
    """The tiles of a pack as one array: `images[row]` and `images[rows]` copy from the page cache.

    Args:
        folder: of the shards.
        names: file names of the shards.
        shard: int32 [M], for each row the position in `names`.
        slot: int32 [M], for each row the position in its shard.
        side: side of a tile, pixels.
        open_shards: number of shards that stay mapped; None: all. Pages that were read count as the
            process's memory while mapped, although the system can reclaim them.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        shard: NDArray[np.int32],
        slot: NDArray[np.int32],
        side: int,
        open_shards: int | None = None,
    ) -> None:
        self._folder, self._names = folder, tuple(names)
        self._shard, self._slot = shard, slot
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._open_shards = open_shards
        self.shape = (len(shard), side, side, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, object]:
        """Pickle the paths only; another process maps the shards itself."""
        return {**vars(self), "_maps": {}}

    @overload
    def __getitem__(self, rows: int | np.integer) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]: ...
    def __getitem__(self, rows: int | np.integer | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy a tile uint8 [S, S, 3], or tiles [N, S, S, 3] in the order of `rows`."""
        if isinstance(rows, int | np.integer):
            tile: NDArray[np.uint8] = self.read(np.array([rows]))[0]
            return tile
        return self.read(rows)

    def read(self, rows: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Read tiles uint8 [N, S, S, 3], into `out` if given, which saves page faults."""
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for position, (shard, slot) in enumerate(
            zip(self._shard[rows].tolist(), self._slot[rows].tolist(), strict=True)
        ):
            tiles = self._maps.get(shard)
            if tiles is None:
                tiles = self._open(shard)
            out[position] = tiles[slot]
        return out

    def _open(self, shard: int) -> NDArray[np.uint8]:
        # As a plain array, since `__getitem__` of a memmap is ten times slower.
        path = self._folder / self._names[shard]
        try:
            file = path.stat()
            # Read again before removing it: the first read may have failed in transit.
            if not _is_whole(path, file.st_size, file.st_mtime_ns) and not _has_checksum(path):
                raise _remove(path)
            tiles = np.asarray(np.load(path, mmap_mode="r"))
        except FileNotFoundError:
            raise DataError(f"{path}: is gone; `dvc repro normalize` makes it again") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        if self._open_shards is not None and len(self._maps) >= self._open_shards:
            # Another thread may have dropped the same one; its readers keep it alive.
            self._maps.pop(next(iter(self._maps)), None)
        self._maps[shard] = tiles
        return tiles


def _remove(path: Path) -> DataError:
    """Remove a damaged shard and return the error to raise.

    DVC would not notice the damage: it compares modification times, which a failing disk keeps.
    """
    remedy = "so it was removed; start it again, or `dvc repro normalize`, and it is made anew"
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        remedy = f"and it cannot be removed ({error.strerror}); remove it, and `dvc repro normalize` makes it anew"
    return DataError(f"{path}: damaged: its bytes do not have the checksum in its name, {remedy}")
