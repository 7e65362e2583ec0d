"""The original bytes of tiles, as a deployed model would receive them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.data.parquet import read_table
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.layout import Layout


def read_raw_tiles(layout: Layout, tile_ids: Sequence[str]) -> list[bytes]:
    """Bytes of the image files of some tiles, in their order.

    Raises:
        DataError: a tile is unknown, or its file is gone.
    """
    table = read_table(layout.tiles / "tiles.parquet", ("tile_id", "path"), stage="ingest")
    paths = table.set_index("tile_id")["path"].reindex(list(tile_ids))
    if paths.isna().any():
        raise DataError(f"tile {paths.index[paths.isna()][0]} is not in tiles.parquet; run `dvc repro`")
    try:
        return [(layout.folder / path).read_bytes() for path in paths]
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot read the raw tile ({error.strerror}); `dvc checkout` restores it"
        ) from error
