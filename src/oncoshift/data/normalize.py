"""Stage `normalize`: decode, resize and stain-normalise every tile once, into one pack a variant."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

from oncoshift.data.packs import Pack, StainChoice, write_pack
from oncoshift.data.parallel import Progress, ordered_map
from oncoshift.data.parquet import read_table
from oncoshift.errors import DataError
from oncoshift.serving.preprocess import decode, resize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from oncoshift.layout import Layout
    from oncoshift.settings import Normalize, StainVariant

    ReadTile = Callable[[int], NDArray[np.uint8]]


def run_normalize(settings: Normalize, layout: Layout, progress: Progress | None = None) -> dict[str, Pack]:
    """Write a pack for each of `settings.variants`; packs of other variants are removed.

    Memory holds a few tiles at a time, whatever the data set's size.

    Args:
        settings: section `normalize`.
        layout: the experiment; tiles.parquet is read, and of the splits source_train alone, for the stain reference.
        progress: called with tiles done and in all, counted over all variants.

    Raises:
        DataError: a stage before has not run, a file changed since, or no tile can be the stain reference.
    """
    tiles = read_table(layout.tiles / "tiles.parquet", ("tile_id", "path", "sha256"), stage="ingest")
    read = _reader(tiles, layout.folder, settings.tile_size)
    for stale in layout.packs.glob("*"):
        if stale.name not in settings.variants:
            shutil.rmtree(stale)
    packs: dict[str, Pack] = {}
    # Variant none goes first, so that the others read decoded tiles from its pack.
    for number, variant in enumerate(sorted(settings.variants, key=lambda name: name != "none")):
        stain = _choose_stain(variant, tiles, read, layout)
        step = _shifted(progress, number * len(tiles), len(settings.variants) * len(tiles))
        packs[variant] = write_pack(layout.packs / variant, tiles, read, settings.tile_size, stain, step)
        if variant == "none":
            read = packs[variant].images.__getitem__
    return packs


def _reader(tiles: pd.DataFrame, folder: Path, side: int) -> ReadTile:
    paths, digests = tiles["path"].tolist(), tiles["sha256"].tolist()

    def read(row: int) -> NDArray[np.uint8]:
        path = folder / paths[row]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; it was there at ingest: run `dvc repro`") from None
        if hashlib.sha256(data).hexdigest() != digests[row]:
            raise DataError(f"{path}: changed since ingest; run `dvc repro`")
        return resize(decode(data), side)

    return read


def _choose_stain(variant: StainVariant, tiles: pd.DataFrame, read: ReadTile, layout: Layout) -> StainChoice:
    if variant == "none":
        return StainChoice(variant)
    # staintools belongs to the platform's dependencies; a machine that only trains does not have it.
    from oncoshift.data.stain.reference import nearest_to_median, tile_statistics
    from oncoshift.data.stain.reinhard import ReinhardNormalizer, fit

    source_train = read_table(layout.splits / "source_train.parquet", ("tile_id",), stage="split")["tile_id"]
    rows = tiles.index[tiles["tile_id"].isin(source_train)].tolist()
    if len(rows) < len(source_train):
        raise DataError(f"{layout.splits}: has tiles that ingest has not; run `dvc repro split`")
    chosen = rows[nearest_to_median(ordered_map(lambda row: tile_statistics(read(row)), rows))]
    reference = fit(read(chosen))
    return StainChoice(variant, ReinhardNormalizer(reference), reference, str(tiles["tile_id"].iloc[chosen]))


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)
