"""The scale of packs in µm per pixel, if the data set declares the scale of its tiles.

The scale of most tiles is that of the packs. Tiles of another scale are resampled to it, and tiles
without one are resized as a whole. If all tiles have one size and scale, nothing is resampled, and
the packs are the same as without a scale.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from oncoshift.data.packs.tiles import FileReader
from oncoshift.data.parquet import read_table
from oncoshift.data.tables import SCALE
from oncoshift.errors import DataError
from oncoshift.files import read_json, write_json
from oncoshift.serving.images import UnreadableImageError, decode
from oncoshift.serving.scale import compute_crop, resample

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.data.packs.tiles import TileSource

FILE = "scale.json"
"""In the folder of the packs, if they have a scale."""

_DIGITS = 4


@dataclass(frozen=True)
class PackScale:
    """The scale of packs.

    Attributes:
        um_per_pixel: µm per pixel of a packed tile.
        crops: tile_id → side, in pixels of the tile, of the square that is resampled; none for
            tiles that are resized as a whole.
    """

    um_per_pixel: float
    crops: Mapping[str, float]


def find_scale(table: Path, side: int) -> PackScale | None:
    """Find the scale of packs; None if no tile says its own.

    Args:
        table: tiles.parquet.
        side: side of a packed tile, pixels.

    Raises:
        DataError: a tile cannot be resampled to the scale of most.
    """
    if SCALE not in pq.read_schema(table).names:
        return None
    rows = read_table(table, ("tile_id", "width", "height", SCALE), stage="ingest").dropna(subset=[SCALE])
    if rows.empty:
        return None
    packed = rows[SCALE] * rows[["width", "height"]].min(axis=1) / side
    most = Counter(packed.round(_DIGITS).tolist()).most_common()
    wanted = min(scale for scale, count in most if count == most[0][1])
    crops = {}
    for tile_id, width, height, scale in rows.itertuples(index=False):
        try:
            crop = compute_crop(width, height, scale, side, wanted)
        except UnreadableImageError as error:
            raise DataError(
                f"{tile_id}: {error}; most tiles show {side * wanted:.3g} µm: correct its {SCALE}, or remove it"
            ) from None
        if crop is not None:
            crops[tile_id] = round(crop, 3)
    return PackScale(wanted, crops)


def write_scale(folder: Path, scale: PackScale | None) -> None:
    """Write the scale beside the packs, or remove that of other data."""
    if scale is None:
        (folder / FILE).unlink(missing_ok=True)
    else:
        write_json(folder / FILE, {SCALE: scale.um_per_pixel})


def read_scale(folder: Path) -> float | None:
    """Read the µm per pixel of the packs in a folder; None if the data set does not say any."""
    try:
        return float(read_json(folder / FILE, SCALE)[SCALE])
    except FileNotFoundError:
        return None


class ScaledReader(FileReader):
    """A reader of tiles from their files that resamples those of another scale.

    Args:
        base: the experiment's folder.
        side: side of a tile, pixels.
        crops: see `PackScale`.
    """

    def __init__(self, base: Path, side: int, crops: Mapping[str, float]) -> None:
        super().__init__(base, side)
        self._crops = crops

    def _decode(self, data: bytes, tile: TileSource) -> NDArray[np.uint8]:
        crop = self._crops.get(tile.tile_id)
        return super()._decode(data, tile) if crop is None else resample(decode(data), crop, self._side)
