"""Updating a pack: intact tiles are kept, the others are made shard by shard in several processes.

A tile's key is the hash of all that decides its pixels. A tile whose key is already in the pack is
kept where it is, so the cost of adding a few tiles is that of a few tiles. Shards that are damaged
or less than half used are made again. A killed run resumes with the shards it had not finished.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from pyarrow import ArrowInvalid

from oncoshift.data.packs.pack import INDEX_COLUMNS, SHARDS, Pack, PackNormalization, commit
from oncoshift.data.packs.shards import find_shard, is_whole, write_shard
from oncoshift.errors import DataError
from oncoshift.files import atomic, hold_lock, writing
from oncoshift.parallel import Progress, count_usable_cores, map_in_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.data.packs.tiles import TileMaker, TileSource

    Fits = Mapping[str, Sequence[TileSource]]

MAX_IN_PROCESS = 2048
"""Number of tiles up to which no other processes are started, since starting takes seconds."""

FIT_TILES = 64
"""Tiles from which a group's stains are estimated at most, those with the smallest hashes."""

_MIN_USED = 0.5


@dataclass(frozen=True)
class PackRecipe:
    """All that decides a pack except its tiles.

    Attributes:
        stain: how tiles are normalised.
        side: side of a tile, pixels.
        code: hash of the source code that makes tiles.
        backend: which implementation of the normalisation.
        shard_tiles: tiles in a shard at most; decides how tiles are stored, not their pixels.
        resampled: tile_id → how it is resampled to the pack's scale; absent for tiles that are
            resized as a whole.
    """

    stain: PackNormalization
    side: int
    code: str
    backend: str
    shard_tiles: int
    resampled: Mapping[str, str] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Hash what decides a tile's pixels beside its file."""
        stain, reference = self.stain, self.stain.reference
        values = [stain.variant, reference and reference.to_dict(), stain.fit]
        return _hash(json.dumps([*values, self.side, self.code, self.backend]))


class PackReport(NamedTuple):
    """The result of an update: tiles kept, tiles made and damaged shards found."""

    kept: int
    made: int
    damaged: int


class _Slot(NamedTuple):
    """The place of a tile and the outcome of its normalisation."""

    shard: str
    slot: int
    outcome: str


class _Shard(NamedTuple):
    """A shard to make: its plan, keys and tiles, and the tiles to estimate stains from."""

    plan: str
    keys: tuple[str, ...]
    tiles: tuple[TileSource, ...]
    fits: Fits | None


def update_pack(
    folder: Path,
    tiles: Sequence[TileSource],
    recipe: PackRecipe,
    maker: TileMaker,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[Pack, PackReport]:
    """Update the pack to hold `tiles` in their order.

    The old pack stays readable until the end.

    Args:
        folder: `data/packs/<variant>`.
        tiles: the tiles the pack shall hold.
        recipe: all else that decides the pack.
        maker: makes tiles by this recipe; can be sent to another process.
        workers: number of processes; None: one per core, or none for a few tiles.
        progress: called with tiles done and in total.

    Raises:
        DataError: a file is gone or has changed since ingest, a process died, another one is making
            this pack, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def busy() -> DataError:
        return DataError(f"{folder}: another process is making this pack; wait until it is done, or end it")

    with hold_lock(folder, busy), writing(folder, len(tiles) * recipe.side**2 * 3):
        return _update(folder, tiles, recipe, maker, workers, progress or (lambda _done, _total: None))


def _update(
    folder: Path,
    tiles: Sequence[TileSource],
    recipe: PackRecipe,
    maker: TileMaker,
    workers: int | None,
    progress: Progress,
) -> tuple[Pack, PackReport]:
    fits = _pick_fit_tiles(tiles) if recipe.stain.fit == "group" else None
    keys = _compute_keys(tiles, recipe, fits)
    slots, damaged = _find_kept(folder, set(keys))
    missing = {key: tile for key, tile in zip(keys, tiles, strict=True) if key not in slots}
    report = PackReport(len(tiles) - len(missing), len(missing), damaged)
    done = report.kept
    progress(done, len(tiles))
    for shard, name, outcomes in _make_shards(
        _plan(missing, fits, recipe), folder / SHARDS, recipe.side, maker, workers
    ):
        for slot, (key, outcome) in enumerate(zip(shard.keys, outcomes, strict=True)):
            slots[key] = _Slot(name, slot, outcome)
        done += len(outcomes)
        progress(done, len(tiles))
    rows = [(tile.tile_id, tile.group, tile.sha256, key, *slots[key]) for key, tile in zip(keys, tiles, strict=True)]
    index = pd.DataFrame(rows, columns=list(INDEX_COLUMNS)).astype({"slot": "int32"})
    return commit(folder, index, recipe.stain, recipe.side, recipe.hash), report


def _compute_keys(tiles: Sequence[TileSource], recipe: PackRecipe, fits: Fits | None) -> list[str]:
    def parts(tile: TileSource) -> tuple[str, ...]:
        resampled = recipe.resampled.get(tile.tile_id)
        return (tile.sha256,) if resampled is None else (tile.sha256, resampled)

    made_by = recipe.hash
    of_group = {
        group: _hash(*(part for tile in members for part in parts(tile))) for group, members in (fits or {}).items()
    }
    return [_hash(made_by, tile.sha256, of_group.get(tile.group, ""), *parts(tile)[1:]) for tile in tiles]


def _pick_fit_tiles(tiles: Sequence[TileSource]) -> dict[str, Sequence[TileSource]]:
    members: dict[str, list[TileSource]] = {}
    for tile in sorted(tiles, key=lambda tile: tile.sha256):
        members.setdefault(tile.group, []).append(tile)
    return {group: of_group[:FIT_TILES] for group, of_group in members.items()}


def _find_kept(folder: Path, wanted: set[str]) -> tuple[dict[str, _Slot], int]:
    """Find wanted tiles in shards that are intact and well used, and count damaged shards."""
    try:
        pack = Pack.open(folder, complete=False)
    except (DataError, ArrowInvalid):
        return {}, 0
    names = sorted(pack.index["shard"].unique())
    whole = dict(zip(names, map_in_order(lambda name: is_whole(folder / SHARDS / name), names), strict=True))
    rows = pack.index[pack.index["key"].isin(wanted)].drop_duplicates("key")
    used, tile_bytes = Counter(rows["shard"]), pack.side**2 * 3
    keep = {
        name
        for name in names
        if whole[name] and used[name] >= _MIN_USED * ((folder / SHARDS / name).stat().st_size // tile_bytes)
    }
    rows = rows[rows["shard"].isin(keep)]
    columns = (rows[name].tolist() for name in ("key", "shard", "slot", "outcome"))
    slots = {key: _Slot(shard, slot, outcome) for key, shard, slot, outcome in zip(*columns, strict=True)}
    return slots, sum(not each for each in whole.values())


def _plan(missing: Mapping[str, TileSource], fits: Fits | None, recipe: PackRecipe) -> list[_Shard]:
    """Plan the shards in the tiles' order, keeping groups whole if stains are fitted by group."""
    entries = list(missing.items())
    if fits is not None:
        entries.sort(key=lambda entry: (entry[1].group, entry[1].row))
    shards: list[_Shard] = []
    for start in range(0, len(entries), recipe.shard_tiles):
        keys, tiles = zip(*entries[start : start + recipe.shard_tiles], strict=True)
        of_shard = None if fits is None else {tile.group: fits[tile.group] for tile in tiles}
        shards.append(_Shard(_hash(*keys), keys, tiles, of_shard))
    return shards


def _make_shards(
    shards: Sequence[_Shard], folder: Path, side: int, maker: TileMaker, workers: int | None
) -> Iterator[tuple[_Shard, str, list[str]]]:
    """Yield each shard as it is finished, with its file name and its tiles' outcomes."""
    count = min(workers or count_usable_cores(), len(shards))
    if count <= 1 or (workers is None and sum(len(shard.tiles) for shard in shards) <= MAX_IN_PROCESS):
        for shard in shards:
            yield shard, *_make_shard(shard, folder, side, maker, threads=None)
        return
    # Not by fork: the parent has threads, such as those of OpenMP, which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_start_worker, initargs=(_Work(folder, side, maker),)) as pool:
        try:
            waiting = {pool.submit(_make_in_worker, shard): shard for shard in shards}
            for future in as_completed(waiting):
                yield waiting[future], *future.result()
        except BrokenProcessPool:
            raise DataError(
                f"{folder}: a packing process was killed, perhaps for lack of memory; finished shards are kept: "
                "run it again, with a smaller normalize.workers if it happens twice"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _make_shard(shard: _Shard, folder: Path, side: int, maker: TileMaker, threads: int | None) -> tuple[str, list[str]]:
    """Write a shard, unless a killed run did, and keep its outcomes until the pack is committed."""
    marker = folder / f"{shard.plan}.json"
    name = find_shard(folder, shard.plan) if marker.is_file() else None
    if name is not None:
        return name, json.loads(marker.read_text(encoding="utf-8"))
    outcomes: list[str] = []

    def images() -> Iterator[NDArray[np.uint8]]:
        for image, outcome in maker.make(shard.tiles, shard.fits, threads):
            outcomes.append(outcome)
            yield image

    name = write_shard(folder, shard.plan, images(), len(shard.tiles), side)
    with atomic(marker) as temporary:
        temporary.write_text(json.dumps(outcomes), encoding="utf-8")
    return name, outcomes


class _Work(NamedTuple):
    folder: Path
    side: int
    maker: TileMaker


_work: _Work | None = None
"""The work of this process, if it is a packing process."""


def _start_worker(work: _Work) -> None:
    global _work
    _work = work
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent dies; a pool's process would otherwise wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_in_worker(shard: _Shard) -> tuple[str, list[str]]:
    if _work is None:
        raise RuntimeError("not a packing process")
    return _make_shard(shard, _work.folder, _work.side, _work.maker, threads=1)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
