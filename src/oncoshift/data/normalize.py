"""Stage `normalize`: every tile is decoded, resized and stain-normalised once per variant."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from pyarrow import ArrowInvalid

from oncoshift.data.packs.make import PackRecipe, PackReport, update_pack
from oncoshift.data.packs.pack import Pack, PackNormalization
from oncoshift.data.packs.scale import ScaledReader, find_scale, write_scale
from oncoshift.data.packs.tiles import FileReader, PackReader, TileMaker, TileSource
from oncoshift.data.parquet import read_table, write_table
from oncoshift.data.stain import compute_tile_statistics, pick_backend, pick_reference
from oncoshift.data.stain.sheet import draw_stain_sheet
from oncoshift.errors import DataError
from oncoshift.files import atomic
from oncoshift.fingerprint import SETTINGS, TILE_LIBRARIES, fingerprint_code, fingerprint_value
from oncoshift.parallel import ignore_progress, map_in_order
from oncoshift.serving.stain import UnstainableTileError, fit_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oncoshift.data.packs.tiles import Reader
    from oncoshift.data.stain.reference import Statistics
    from oncoshift.layout import Layout
    from oncoshift.parallel import Phases, Progress
    from oncoshift.serving.stain import StainMethod
    from oncoshift.settings import NormalizeSettings, StainVariant


SHEET = "stains.png"
"""File in the folder of the packs that shows some tiles in all variants side by side. It exists if
there is more than one variant."""

_SHOWN_EACH = 2
"""Tiles per organ on the sheet."""


_STATISTICS = ("sha256", "mean_l", "mean_a", "mean_b", "std_l", "std_a", "std_b")


class Normalized(NamedTuple):
    """An updated pack, and the report of its update."""

    pack: Pack
    report: PackReport


def run_normalize(
    settings: NormalizeSettings, layout: Layout, phases: Phases = ignore_progress
) -> dict[str, Normalized]:
    """Update the pack of each of `settings.variants`, remove other packs, and draw the sheet.

    Memory holds a few tiles at a time and a record of each, whatever the size of the data set.

    Args:
        settings: section `normalize`.
        layout: the experiment. Of the splits only source_train is read, for the stain reference.
        phases: progress of each variant, which counts tiles.

    Raises:
        DataError: an earlier stage has not run, a file changed since, or no tile can be the stain
            reference.
    """
    columns = ("tile_id", "group", "path", "sha256")
    table = read_table(layout.tiles / "tiles.parquet", (*columns, "organ"), stage="ingest")
    rows = zip(*(table[name].tolist() for name in columns), strict=True)
    tiles = [TileSource(row, *values) for row, values in enumerate(rows)]
    for stale in layout.packs.glob("*/"):
        if stale.name not in settings.variants:
            shutil.rmtree(stale)
    scale = find_scale(layout.tiles / "tiles.parquet", settings.tile_size)
    write_scale(layout.packs, scale)
    stage = _Stage(settings, layout, tiles, {} if scale is None else scale.crops)
    done: dict[str, Normalized] = {}
    # Variant none comes first, so that the others can read decoded tiles from its pack.
    for variant in sorted(settings.variants, key=lambda name: name != "none"):
        done[variant] = stage.update(variant, phases(variant))
    _draw_sheet(layout, table, done)
    return done


@dataclass(frozen=True)
class _Stage:
    settings: NormalizeSettings
    layout: Layout
    tiles: list[TileSource]
    crops: Mapping[str, float]

    def update(self, variant: StainVariant, progress: Progress) -> Normalized:
        settings = self.settings
        stain = PackNormalization("none") if variant == "none" else self._stain(variant)
        backend = "none" if variant == "none" else pick_backend(settings.backend)
        recipe = PackRecipe(stain, settings.tile_size, self._code, backend, settings.shard_tiles, self._resampled)
        maker = TileMaker(self._reader(variant), stain.reference, backend)
        folder = self.layout.packs / variant
        return Normalized(*update_pack(folder, self.tiles, recipe, maker, settings.workers, progress))

    def _reader(self, variant: StainVariant) -> Reader:
        if variant == "none" or "none" not in self.settings.variants:
            if self.crops:
                return ScaledReader(self.layout.folder, self.settings.tile_size, self.crops)
            return FileReader(self.layout.folder, self.settings.tile_size)
        return PackReader(self.layout.packs / "none")

    def _stain(self, variant: StainMethod) -> PackNormalization:
        settings, tile = self.settings, self._reference
        luminosity, precision = settings.standardize_luminosity, settings.precision
        try:
            image = self._reader(variant)(tile)
            reference = fit_reference(image, variant, standardize_luminosity=luminosity, precision=precision)
        except UnstainableTileError as error:
            raise DataError(
                f"the stain reference {tile.tile_id} cannot be fitted by {variant}: {error}; look at that tile, and "
                f"remove it or remove {variant} from normalize.variants"
            ) from error
        return PackNormalization(variant, reference, tile.tile_id, settings.fit)

    @cached_property
    def _reference(self) -> TileSource:
        """The tile picked by the rule in `data.stain.reference`, the same for all variants."""
        splits = self.layout.splits
        source_train = set(read_table(splits / "source_train.parquet", ("tile_id",), stage="split")["tile_id"])
        tiles = [tile for tile in self.tiles if tile.tile_id in source_train]
        if len(tiles) < len(source_train):
            raise DataError(f"{splits}: has tiles that are not in tiles.parquet; run `dvc repro split`")
        return tiles[pick_reference(self._statistics(tiles), [tile.sha256 for tile in tiles])]

    def _statistics(self, tiles: Sequence[TileSource]) -> list[Statistics | None]:
        """Compute each tile's statistics; kept beside the packs, so only new tiles are measured."""
        made_by = fingerprint_value([self._code, self.settings.tile_size, *sorted(self._resampled.items())])
        path = self.layout.packs / f"statistics-{made_by}.parquet"
        kept = _read_statistics(path)
        read = self._reader("reinhard")
        missing = [tile for tile in tiles if tile.sha256 not in kept]
        measured = map_in_order(lambda tile: compute_tile_statistics(read(tile)), missing)
        known = kept | dict(zip((tile.sha256 for tile in missing), measured, strict=True))
        found = {digest: known[digest] for digest in sorted(tile.sha256 for tile in tiles)}
        if found != kept:
            rows = [(digest, *(figures or [np.nan] * 6)) for digest, figures in found.items()]
            write_table(pd.DataFrame(rows, columns=list(_STATISTICS)), path)
        for stale in self.layout.packs.glob("statistics-*.parquet"):
            if stale != path:
                stale.unlink()
        return [found[tile.sha256] for tile in tiles]

    @cached_property
    def _resampled(self) -> dict[str, str]:
        """How each tile of another scale is resampled, for its key."""
        if not self.crops:
            return {}
        code = fingerprint_code("oncoshift.data.packs.scale", libraries=TILE_LIBRARIES, without=SETTINGS)
        return {tile_id: f"{crop} {code}" for tile_id, crop in self.crops.items()}

    @cached_property
    def _code(self) -> str:
        entries = "oncoshift.data.packs.tiles", "oncoshift.data.stain.backend"
        return fingerprint_code(*entries, libraries=TILE_LIBRARIES, without=SETTINGS)


def _read_statistics(path: Path) -> dict[str, Statistics | None]:
    """Read statistics by the file's hash; none if the table is absent or damaged."""
    try:
        rows = read_table(path, _STATISTICS, stage="normalize").to_numpy().tolist()
    except (DataError, ArrowInvalid):
        return {}
    return {row[0]: None if row[1] != row[1] else tuple(row[1:]) for row in rows}


def _draw_sheet(layout: Layout, table: pd.DataFrame, done: dict[str, Normalized]) -> None:
    path = layout.packs / SHEET
    if len(done) < 2:
        path.unlink(missing_ok=True)
        return
    shows = fingerprint_value({variant: each.pack.content for variant, each in done.items()})
    if _read_shown_packs(path) == shows:
        return
    rows = table.sort_values("sha256").groupby("organ", sort=True).head(_SHOWN_EACH).sort_values("organ", kind="stable")
    positions = rows.index.to_numpy()
    figure = draw_stain_sheet(
        {variant: list(each.pack.images[positions]) for variant, each in done.items()},
        rows["organ"].tolist(),
        {variant: each.pack.index["outcome"].iloc[positions].tolist() for variant, each in done.items()},
    )
    with atomic(path) as temporary:
        # Without matplotlib's version, so that the same tiles give the same bytes.
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None, "Comment": shows})


def _read_shown_packs(sheet: Path) -> str | None:
    """Read from a sheet which packs it shows."""
    try:
        with Image.open(sheet) as image:
            return image.info.get("Comment")
    except OSError:
        return None
