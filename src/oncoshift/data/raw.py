"""The original files of tiles: their paths, and what a deployed model receives of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq

from oncoshift.data.parquet import read_table
from oncoshift.data.tables import SCALE
from oncoshift.errors import DataError
from oncoshift.serving.images import UnreadableImageError, read_image_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oncoshift.layout import Layout


def find_tile_paths(layout: Layout, tile_ids: Sequence[str]) -> list[Path]:
    """Find the image files of some tiles, in their order.

    Raises:
        DataError: a tile is unknown.
    """
    table = read_table(layout.tiles / "tiles.parquet", ("tile_id", "path"), stage="ingest")
    paths = table.set_index("tile_id")["path"].reindex(list(tile_ids))
    if paths.isna().any():
        raise DataError(f"{paths.index[paths.isna()][0]}: no such tile in {layout.tiles}; run `dvc repro`")
    return [layout.folder / path for path in paths]


def read_raw_tiles(layout: Layout, tile_ids: Sequence[str]) -> pd.DataFrame:
    """Read some tiles as a deployed model receives them, in their order.

    Returns:
        Columns image, the bytes of the file, and, if any tile of the data set declares its scale,
        um_per_pixel, which is null for the others.

    Raises:
        DataError: a tile is unknown, or its file is gone.
    """
    tiles = pd.DataFrame({"image": [_read(path) for path in find_tile_paths(layout, tile_ids)]})
    table = layout.tiles / "tiles.parquet"
    if SCALE not in pq.read_schema(table).names:
        return tiles
    scales = read_table(table, ("tile_id", SCALE), stage="ingest").set_index("tile_id")[SCALE]
    return tiles.assign(**{SCALE: scales.loc[list(tile_ids)].to_numpy()})


def _read(path: Path) -> bytes:
    try:
        return read_image_file(path)
    except UnreadableImageError as error:
        raise DataError(f"{path}: {error}; `dvc checkout` restores the raw tiles") from error
