"""A pack: all tiles of one stain variant in one memory-mapped array, ready for training.

    data/packs/<variant>/
        images.npy     uint8 [M, S, S, 3], a row for each row of tiles.parquet
        index.parquet  tile_id, row, sha256 (of the file the tile came from), outcome
        stain.json     the variant, its reference, the reference's tile, how many tiles met which outcome

The labels are not in it. The same tiles and settings give the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from oncoshift.data.parallel import Progress, ordered_map
from oncoshift.data.parquet import read_table, write_table
from oncoshift.errors import DataError
from oncoshift.files import sha256_file
from oncoshift.serving.preprocess import ReinhardReference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.data.stain.base import StainNormalizer

INDEX_COLUMNS = ("tile_id", "row", "sha256", "outcome")
UNTOUCHED = "untouched"
"""The outcome of every tile in variant `none`; for the others see `StainOutcome`."""


@dataclass(frozen=True)
class Stain:
    """How a pack was normalised; the content of stain.json.

    Attributes:
        variant: none or the method's name.
        reference: what tiles were normalised to; None for variant `none`.
        reference_tile: tile_id of the reference.
        outcomes: number of tiles by outcome.
    """

    variant: str
    reference: ReinhardReference | None
    reference_tile: str | None
    outcomes: dict[str, int]


@dataclass(frozen=True)
class StainChoice:
    """A variant and, unless it is `none`, its fitted normaliser and where that came from."""

    variant: str
    normalizer: StainNormalizer | None = None
    reference: ReinhardReference | None = None
    reference_tile: str | None = None


@dataclass(frozen=True)
class Pack:
    """An opened pack.

    Attributes:
        images: uint8 [M, S, S, 3], a read-only memory map.
        index: the columns in `INDEX_COLUMNS`, in the order of `images`.
        stain: how it was normalised.
    """

    images: NDArray[np.uint8]
    index: pd.DataFrame
    stain: Stain

    @classmethod
    def open(cls, folder: Path) -> Pack:
        """Open `data/packs/<variant>`.

        Raises:
            DataError: it is not there, or its parts do not fit together.
        """
        index = read_table(folder / "index.parquet", INDEX_COLUMNS, stage="normalize")
        images = np.load(folder / "images.npy", mmap_mode="r")
        if len(images) != len(index):
            raise DataError(
                f"{folder}: {len(images)} images but {len(index)} in the index; run `dvc repro -f normalize`"
            )
        stain = json.loads((folder / "stain.json").read_text(encoding="utf-8"))
        return cls(images, index, Stain(**(stain | {"reference": _reference(stain["reference"])})))

    @property
    def side(self) -> int:
        """Side of a tile, pixels."""
        return int(self.images.shape[1])

    def rows(self, tile_ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of some tiles in `images`, int64 [N].

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
        rows: NDArray[np.int64] = self.index["row"].to_numpy(np.int64)[positions]
        return rows


def write_pack(
    folder: Path,
    tiles: pd.DataFrame,
    read: Callable[[int], NDArray[np.uint8]],
    side: int,
    stain: StainChoice,
    progress: Progress | None = None,
) -> Pack:
    """Write a pack and open it. What is in `folder` is replaced only once the new pack is whole.

    Args:
        folder: `data/packs/<variant>`.
        tiles: columns tile_id and sha256; the order of the pack.
        read: row → the tile, uint8 [side, side, 3]; called from several threads.
        side: side of a tile, pixels.
        stain: what to do to each tile.
        progress: called with tiles done and in all.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    images = np.lib.format.open_memmap(
        temporary / "images.npy", mode="w+", dtype=np.uint8, shape=(len(tiles), side, side, 3)
    )

    def fill(row: int) -> str:
        if stain.normalizer is None:
            images[row] = read(row)
            return UNTOUCHED
        images[row], outcome = stain.normalizer(read(row))
        return outcome

    outcomes = ordered_map(fill, range(len(tiles)), progress)
    images.flush()
    index = tiles[["tile_id", "sha256"]].assign(row=np.arange(len(tiles)), outcome=outcomes)
    write_table(index[list(INDEX_COLUMNS)], temporary / "index.parquet")
    made = Stain(stain.variant, stain.reference, stain.reference_tile, dict(sorted(Counter(outcomes).items())))
    (temporary / "stain.json").write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")
    _swap(temporary, folder)
    return Pack.open(folder)


def pack_digest(folder: Path) -> str:
    """SHA-256 over the contents of a pack's files."""
    return "".join(sha256_file(folder / name) for name in ("images.npy", "index.parquet", "stain.json"))


def _reference(values: dict[str, Any] | None) -> ReinhardReference | None:
    if values is None:
        return None
    (m0, m1, m2), (s0, s1, s2) = values["means"], values["stds"]
    return ReinhardReference((m0, m1, m2), (s0, s1, s2), values["standardize_luminosity"])


def _swap(temporary: Path, folder: Path) -> None:
    """Put a finished folder in the place of an old one; a folder cannot be replaced in one step as a file can."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    temporary.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
