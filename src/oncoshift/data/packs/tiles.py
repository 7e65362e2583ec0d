"""Making the tiles of a variant from their files or from pack `none`, in any process."""

from __future__ import annotations

import hashlib
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from oncoshift.data.packs.pack import UNTOUCHED, Pack
from oncoshift.errors import DataError
from oncoshift.parallel import map_in_order
from oncoshift.serving.images import UnreadableImageError, read_image_file, read_tile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.serving.stain import StainNormalizer, StainReference

_CHUNK = 64
"""Tiles made at once."""

_OPEN_SHARDS = 4
"""Shards of pack `none` that stay mapped; tiles are read almost in order, from few at a time."""


class TileSource(NamedTuple):
    """A tile that a pack shall hold.

    Attributes:
        row: its row in tiles.parquet and in pack `none`.
        tile_id: of the tile.
        group: patient, slide or original.
        path: of its file, absolute or relative to the experiment.
        sha256: of its file.
    """

    row: int
    tile_id: str
    group: str
    path: str
    sha256: str


class Reader(Protocol):
    """A source of the tiles of variant `none` that can be sent to another process."""

    def __call__(self, tile: TileSource) -> NDArray[np.uint8]:
        """Read a tile at the pack's size, uint8 [S, S, 3]."""
        ...


class FileReader:
    """A reader of tiles from their files.

    Args:
        base: the experiment's folder.
        side: side of a tile, pixels.
    """

    def __init__(self, base: Path, side: int) -> None:
        self._base, self._side = base, side

    def __call__(self, tile: TileSource) -> NDArray[np.uint8]:
        """See `Reader`.

        Raises:
            DataError: the file is gone, or changed since ingest.
        """
        path = self._base / tile.path
        try:
            data = read_image_file(path)
        except UnreadableImageError as error:
            raise DataError(f"{path}: {error}; it was there at ingest: run `dvc repro`") from None
        if hashlib.sha256(data).hexdigest() != tile.sha256:
            raise DataError(f"{path}: changed since ingest; run `dvc repro`")
        try:
            return self._decode(data, tile)
        except UnreadableImageError as error:
            raise DataError(f"{path}: {error}; ingest could read it: run `dvc repro --force ingest`") from None

    def _decode(self, data: bytes, tile: TileSource) -> NDArray[np.uint8]:  # noqa: ARG002 - for subclasses
        return read_tile(data, self._side)


class PackReader:
    """A reader of tiles from pack `none`.

    Args:
        folder: of that pack.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, tile: TileSource) -> NDArray[np.uint8]:
        """See `Reader`."""
        return self._pack.images[tile.row]

    @cached_property
    def _pack(self) -> Pack:
        return Pack.open(self._folder, open_shards=_OPEN_SHARDS)

    def __getstate__(self) -> dict[str, object]:
        return {"_folder": self._folder}


class TileMaker:
    """A maker of the tiles of a variant.

    Args:
        read: reads the tiles of variant `none`.
        reference: the stains to normalise to; None for variant `none`.
        backend: see `oncoshift.data.stain.build_normalizer`.
    """

    def __init__(self, read: Reader, reference: StainReference | None = None, backend: str = "numba") -> None:
        self._read, self._reference, self._backend = read, reference, backend

    def make(
        self,
        tiles: Sequence[TileSource],
        fits: Mapping[str, Sequence[TileSource]] | None = None,
        threads: int | None = None,
    ) -> Iterator[tuple[NDArray[np.uint8], str]]:
        """Yield each tile uint8 [S, S, 3] with its outcome, holding a few dozen in memory.

        Args:
            tiles: which tiles.
            fits: group → the tiles from which its stains are estimated; None estimates them tile by
                tile.
            threads: number of threads; None: one per core.
        """
        if fits is None:
            for start in range(0, len(tiles), _CHUNK):
                yield from map_in_order(self._make_one, tiles[start : start + _CHUNK], threads=threads)
            return
        for group, members in groupby(tiles, key=lambda tile: tile.group):
            fit = self._normalizer.fit_group(np.stack(map_in_order(self._read, fits[group], threads=threads)))
            for tile in members:
                image = self._read(tile)
                yield (image, fit) if isinstance(fit, str) else self._normalizer.apply(image, fit)

    def _make_one(self, tile: TileSource) -> tuple[NDArray[np.uint8], str]:
        image = self._read(tile)
        return (image, UNTOUCHED) if self._reference is None else self._normalizer(image)

    @cached_property
    def _normalizer(self) -> StainNormalizer:
        from oncoshift.data.stain import build_normalizer

        if self._reference is None:
            raise ValueError("variant none has no stain reference")
        return build_normalizer(self._reference, self._backend)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_normalizer"}
