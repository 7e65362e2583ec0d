"""The original files of tiles: their paths, and their bytes as a deployed model receives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.data.parquet import read_table
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


def read_raw_tiles(layout: Layout, tile_ids: Sequence[str]) -> list[bytes]:
    """Read the bytes of the image files of some tiles, in their order.

    Raises:
        DataError: a tile is unknown, or its file is gone.
    """
    return [_read(path) for path in find_tile_paths(layout, tile_ids)]


def _read(path: Path) -> bytes:
    try:
        return read_image_file(path)
    except UnreadableImageError as error:
        raise DataError(f"{path}: {error}; `dvc checkout` restores the raw tiles") from error
