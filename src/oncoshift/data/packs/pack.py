"""A pack: all tiles of one stain variant at one size, decoded, in shards, ready for training.

    data/packs/<variant>/
        pack.json               how it was made, the name of its index, the hash of its content
        index-<hash>.parquet    one row per row of tiles.parquet, with the columns INDEX_COLUMNS
        shards/                 see `shards`

Replacing pack.json is the single step that makes a new state of the pack visible. A pack contains
no labels. `content` hashes the tiles and not their division into shards, so a pack that grew equals
one that was made at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from oncoshift.data.packs.shards import ShardedImages
from oncoshift.data.parquet import read_table, write_table
from oncoshift.errors import DataError
from oncoshift.files import DamagedFileError, read_json, write_json
from oncoshift.serving.stain import StainReference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

INDEX_COLUMNS = ("tile_id", "group", "sha256", "key", "shard", "slot", "outcome")
"""Columns of the index. sha256: of the tile's file. key: hash of all that decides its pixels.
outcome: a `StainOutcome`, or `UNTOUCHED`."""

UNTOUCHED = "untouched"
"""The outcome of every tile in variant `none`."""

SHARDS = "shards"


@dataclass(frozen=True)
class PackNormalization:
    """How a pack was normalised.

    Attributes:
        variant: none or the method's name.
        reference: the stains that tiles were normalised to; None for variant `none`.
        reference_tile: tile_id of the reference.
        fit: whether stains were estimated for each tile or for each group.
        outcomes: number of tiles by outcome.
    """

    variant: str
    reference: StainReference | None = None
    reference_tile: str | None = None
    fit: str = "tile"
    outcomes: dict[str, int] | None = None


@dataclass(frozen=True)
class Pack:
    """An opened pack.

    Attributes:
        images: uint8 [M, S, S, 3], read by row.
        index: the columns in `INDEX_COLUMNS`, in the order of `images`.
        stain: how it was normalised.
        side: side of a tile, pixels.
        recipe: hash of the settings and the code that made the tiles.
        content: hash of the tiles.
    """

    images: ShardedImages
    index: pd.DataFrame
    stain: PackNormalization
    side: int
    recipe: str
    content: str

    @classmethod
    def open(cls, folder: Path, *, complete: bool = True, open_shards: int | None = None) -> Pack:
        """Open `data/packs/<variant>`.

        Args:
            folder: of the pack.
            complete: whether to refuse a pack with missing shards.
            open_shards: see `ShardedImages`.

        Raises:
            DataError: the pack does not exist, or a shard is missing.
        """
        about = _read_about(folder)
        index = read_table(folder / about["index"], INDEX_COLUMNS, stage="normalize")
        names, shard = np.unique(index["shard"].to_numpy(np.str_), return_inverse=True)
        absent = [name for name in names if not (folder / SHARDS / name).is_file()]
        if absent and complete:
            raise DataError(f"{folder}: {len(absent)} shards are missing, for example {absent[0]}; run `dvc repro`")
        slot = index["slot"].to_numpy(np.int32)
        places = (names.tolist(), shard.astype(np.int32), slot)
        images = ShardedImages(folder / SHARDS, *places, about["side"], open_shards)
        return cls(images, index, _read_stain(about["stain"]), about["side"], about["recipe"], about["content"])

    def rows(self, tile_ids: Sequence[str]) -> NDArray[np.int64]:
        """Find the rows of some tiles in `images`, int64 [N].

        Raises:
            DataError: a tile is not in the pack.
        """
        positions = pd.Index(self.index["tile_id"]).get_indexer(pd.Index(tile_ids))
        missing = np.flatnonzero(positions < 0)
        if len(missing):
            raise DataError(
                f"{len(missing)} tiles are in the splits but not in pack {self.stain.variant!r}, for example "
                f"{tile_ids[missing[0]]}; the stages are out of step: run `dvc repro`"
            )
        rows: NDArray[np.int64] = positions.astype(np.int64)
        return rows


def pack_digest(folder: Path) -> str:
    """Read the hash of a pack's content.

    Raises:
        DataError: there is no pack.
    """
    return str(_read_about(folder)["content"])


def commit(folder: Path, index: pd.DataFrame, stain: PackNormalization, side: int, recipe: str) -> Pack:
    """Make `index` the state of the pack, remove files that it no longer names, and open the pack.

    Args:
        folder: `data/packs/<variant>`, which has the shards that the index names.
        index: the columns in `INDEX_COLUMNS`.
        stain: how it was normalised; the outcomes are counted here.
        side: side of a tile, pixels.
        recipe: hash of the settings and the code that made the tiles.
    """
    outcomes = dict(sorted(Counter(index["outcome"].tolist()).items()))
    rows = zip(index["tile_id"], index["sha256"], index["key"], strict=True)
    content = hashlib.sha256("\n".join(" ".join(row) for row in rows).encode()).hexdigest()
    layout = hashlib.sha256(pd.util.hash_pandas_object(index, index=False).to_numpy().tobytes()).hexdigest()
    name = f"index-{layout[:16]}.parquet"
    write_table(index[list(INDEX_COLUMNS)], folder / name)
    about = {
        "side": side,
        "recipe": recipe,
        "content": content,
        "index": name,
        "stain": asdict(stain) | {"outcomes": outcomes, "reference": stain.reference and stain.reference.to_dict()},
    }
    write_json(folder / "pack.json", about)
    _sweep(folder, name, set(index["shard"]))
    return Pack.open(folder)


def _sweep(folder: Path, index: str, live: set[str]) -> None:
    known = {"pack.json", index, *live}
    for path in [*folder.iterdir(), *(folder / SHARDS).iterdir()]:
        if path.is_file() and path.name not in known:
            path.unlink()


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / "pack.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; run `oncoshift normalize` or `dvc repro normalize` first")
    try:
        return read_json(path, "side", "recipe", "content", "index", "stain")
    except DamagedFileError as error:
        raise DataError(f"{error}; `dvc repro --force normalize` makes the pack again") from None


def _read_stain(values: dict[str, Any]) -> PackNormalization:
    reference = values["reference"]
    return PackNormalization(**(values | {"reference": reference and StainReference.from_dict(reference)}))
