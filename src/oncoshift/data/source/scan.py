"""Listing the tiles of an open data set with its adapter, and what else is in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.data.source.adapters.base import NothingFitsError
from oncoshift.data.source.adapters.folder import MARKER
from oncoshift.data.source.adapters.phantom import MASKS, is_made_up
from oncoshift.data.source.adapters.registry import ADAPTERS, load_adapter
from oncoshift.data.source.folders import TABLE_SUFFIXES
from oncoshift.data.source.organ_names import check_organs
from oncoshift.data.source.passed_over import pass_over
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path, PurePath

    from oncoshift.data.source.adapters.base import RawTile
    from oncoshift.data.source.opening import DataSet
    from oncoshift.data.source.passed_over import PassedOver
    from oncoshift.settings import IngestSettings


@dataclass(frozen=True)
class Scanned:
    """The content of a data set, before any tile is opened.

    Attributes:
        root: the data set's folder, which contains the tiles unless they were extracted.
        tiles: the tiles, sorted by tile_id.
        passed_over: other files of the data set, without hidden ones.
        made_up: whether the data set is a phantom.
    """

    root: Path
    tiles: list[RawTile]
    passed_over: PassedOver
    made_up: bool


def scan(settings: IngestSettings, data_set: DataSet) -> Scanned:
    """List a data set's tiles with the adapter that `settings.adapter` names.

    Args:
        settings: section `ingest`.
        data_set: as `open_data_set` opened it.

    Raises:
        DataError: an organ has a name that settings do not allow, or nothing is laid out as the
            adapter expects; the message then names adapters that would fit.
    """
    folder, left = data_set.root, data_set.passed_over
    try:
        tiles = load_adapter(settings.adapter).scan(folder, settings, data_set.unpacked)
    except NothingFitsError as error:
        others = [name for name in ADAPTERS if name != settings.adapter and load_adapter(name).fits(folder)]
        hint = f"\nit looks like ingest.adapter: {' or '.join(others)}" if others else ""
        raise DataError(f"ingest.adapter {settings.adapter}: {error}{hint}") from None
    check_organs(settings.adapter, tiles)
    if folder.is_file():  # a manifest: other files around it are not part of the data set
        return Scanned(folder.parent, tiles, left, is_made_up(folder))
    made_up = is_made_up(folder)
    pass_over(
        folder,
        [tile.path for tile in tiles],
        lambda path: _is_known(path.relative_to(folder), settings.adapter, made_up),
        left,
    )
    return Scanned(folder, tiles, left, made_up)


def _is_known(path: PurePath, adapter: str, made_up: bool) -> bool:
    """Whether a file that is not a tile was read anyway, or belongs to a phantom."""
    if made_up and (path.name == MARKER or MASKS in path.parts):
        return True
    return ADAPTERS[adapter].reads_tables and path.suffix.lower() in TABLE_SUFFIXES
