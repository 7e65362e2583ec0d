"""Stage `normalize`: decode, resize and stain-normalise every tile once, into one pack a variant."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from oncoshift.data.packs.make import PackRecipe, PackReport, update_pack
from oncoshift.data.packs.pack import Pack, Stain
from oncoshift.data.packs.tiles import FileReader, PackReader, TileMaker, TileSource
from oncoshift.data.parallel import Progress, ordered_map
from oncoshift.data.parquet import read_table
from oncoshift.data.stain import nearest_to_median, pick_backend, tile_statistics
from oncoshift.data.stain.sheet import stain_sheet
from oncoshift.errors import DataError
from oncoshift.files import atomic
from oncoshift.fingerprint import tile_code_fingerprint
from oncoshift.serving.stain import UnstainableTileError, fit_reference

if TYPE_CHECKING:
    import pandas as pd

    from oncoshift.data.packs.tiles import Reader
    from oncoshift.layout import Layout
    from oncoshift.serving.stain import StainMethod
    from oncoshift.settings import Normalize, StainVariant


SHEET = "stains.png"
"""In the folder of the packs: some tiles in every variant side by side, where there is more than one."""

_SHOWN_EACH = 2
"""Tiles of an organ on the sheet."""


class Normalized(NamedTuple):
    """A pack that is up to date, and what that took."""

    pack: Pack
    report: PackReport


def run_normalize(settings: Normalize, layout: Layout, progress: Progress | None = None) -> dict[str, Normalized]:
    """Bring the pack of each of `settings.variants` up to date, and draw them; packs of other variants are removed.

    Memory holds a few tiles and a record for each at a time, whatever the data set's size.

    Args:
        settings: section `normalize`.
        layout: the experiment; tiles.parquet is read, and of the splits source_train alone, for the stain reference.
        progress: called with tiles done and in all, counted over all variants.

    Raises:
        DataError: a stage before has not run, a file changed since, or no tile can be the stain reference.
    """
    columns = ("tile_id", "group", "path", "sha256")
    table = read_table(layout.tiles / "tiles.parquet", (*columns, "organ"), stage="ingest")
    rows = zip(*(table[name].tolist() for name in columns), strict=True)
    tiles = [TileSource(row, *values) for row, values in enumerate(rows)]
    for stale in layout.packs.glob("*/"):
        if stale.name not in settings.variants:
            shutil.rmtree(stale)
    stage = _Stage(settings, layout, tiles)
    done: dict[str, Normalized] = {}
    # Variant none goes first, so that the others read decoded tiles from its pack.
    for number, variant in enumerate(sorted(settings.variants, key=lambda name: name != "none")):
        step = _shifted(progress, number * len(tiles), len(settings.variants) * len(tiles))
        done[variant] = stage.update(variant, step)
    _draw_sheet(layout, table, done)
    return done


@dataclass(frozen=True)
class _Stage:
    settings: Normalize
    layout: Layout
    tiles: list[TileSource]

    def update(self, variant: StainVariant, progress: Progress | None) -> Normalized:
        settings = self.settings
        stain = Stain("none") if variant == "none" else self._stain(variant)
        backend = "none" if variant == "none" else pick_backend(settings.backend)
        recipe = PackRecipe(stain, settings.tile_size, self._code, backend, settings.shard_tiles)
        maker = TileMaker(self._reader(variant), stain.reference, backend)
        # One process a GPU; it reads tiles in threads.
        workers = 1 if backend == "torch" else settings.workers
        folder = self.layout.packs / variant
        return Normalized(*update_pack(folder, self.tiles, recipe, maker, workers, progress))

    def _reader(self, variant: StainVariant) -> Reader:
        if variant == "none" or "none" not in self.settings.variants:
            return FileReader(self.layout.folder, self.settings.tile_size)
        return PackReader(self.layout.packs / "none")

    def _stain(self, variant: StainMethod) -> Stain:
        """The stain that the pack has, while its reference is still a source training tile; else a new one.

        So new tiles do not move the reference of those that are there, nor of a model that was trained on them.
        """
        present = self._present(variant)
        if present is not None:
            return present
        read, settings = self._reader(variant), self.settings
        tile = self._candidates[self._nearest]
        luminosity, precision = settings.standardize_luminosity, settings.precision
        try:
            reference = fit_reference(read(tile), variant, standardize_luminosity=luminosity, precision=precision)
        except UnstainableTileError as error:
            raise DataError(f"the stain reference {tile.tile_id} cannot be fitted by {variant}: {error}") from error
        return Stain(variant, reference, tile.tile_id, tile.sha256, settings.fit)

    def _present(self, variant: StainMethod) -> Stain | None:
        try:
            pack = Pack.open(self.layout.packs / variant, complete=False)
        except DataError:
            return None
        stain, settings = pack.stain, self.settings
        candidates = {(tile.tile_id, tile.sha256) for tile in self._candidates}
        same = (
            pack.side == settings.tile_size
            and stain.reference is not None
            and stain.reference.standardize_luminosity == settings.standardize_luminosity
            and (stain.fit, stain.reference.precision) == (settings.fit, settings.precision)
            and (stain.reference_tile, stain.reference_sha256) in candidates
        )
        return stain if same else None

    @cached_property
    def _candidates(self) -> list[TileSource]:
        """The source training tiles."""
        splits = self.layout.splits
        source_train = set(read_table(splits / "source_train.parquet", ("tile_id",), stage="split")["tile_id"])
        found = [tile for tile in self.tiles if tile.tile_id in source_train]
        if len(found) < len(source_train):
            raise DataError(f"{splits}: has tiles that ingest has not; run `dvc repro split`")
        return found

    @cached_property
    def _nearest(self) -> int:
        """Position in `_candidates` of the reference, by the rule in `data.stain.reference`; one for all variants."""
        read = self._reader("reinhard")
        return nearest_to_median(ordered_map(lambda tile: tile_statistics(read(tile)), self._candidates))

    @cached_property
    def _code(self) -> str:
        return tile_code_fingerprint()


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def _draw_sheet(layout: Layout, table: pd.DataFrame, done: dict[str, Normalized]) -> None:
    path = layout.packs / SHEET
    if len(done) < 2:
        path.unlink(missing_ok=True)
        return
    if path.is_file() and not any(each.report.made for each in done.values()):
        return
    rows = table.sort_values("sha256").groupby("organ", sort=True).head(_SHOWN_EACH).sort_values("organ", kind="stable")
    positions = rows.index.to_numpy()
    figure = stain_sheet(
        {variant: list(each.pack.images[positions]) for variant, each in done.items()},
        rows["organ"].tolist(),
        {variant: each.pack.index["outcome"].iloc[positions].tolist() for variant, each in done.items()},
    )
    with atomic(path) as temporary:
        # Without the version of matplotlib, so that the same tiles give the same bytes.
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
