"""How data sets are laid out: one file an adapter, by its name in `ingest.adapter`; folders and archives alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.data.names import is_text
from oncoshift.data.source.adapters.base import NothingFitsError
from oncoshift.data.source.adapters.breakhis import BreakhisAdapter
from oncoshift.data.source.adapters.folder import MARKER, FolderAdapter
from oncoshift.data.source.adapters.lc25000 import Lc25000Adapter
from oncoshift.data.source.adapters.manifest import ManifestAdapter
from oncoshift.data.source.adapters.multi_cancer import MultiCancerAdapter
from oncoshift.data.source.adapters.nct_crc import NctCrcAdapter
from oncoshift.data.source.adapters.patchcamelyon import PatchCamelyonAdapter
from oncoshift.data.source.adapters.phantom import MASKS, PhantomAdapter, is_made_up
from oncoshift.data.source.archives import TAR_SUFFIXES, ZIP_SUFFIXES, is_archive, unpack
from oncoshift.data.source.folders import is_image
from oncoshift.data.source.made_once import STAMP, discard
from oncoshift.data.source.organ_names import check_organs
from oncoshift.data.source.passed_over import PassedOver, pass_over
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path, PurePath, PurePosixPath

    from oncoshift.data.source.adapters.base import Adapter, RawTile
    from oncoshift.parallel import Progress
    from oncoshift.settings import IngestSettings

ADAPTERS: dict[str, Adapter] = {
    "breakhis": BreakhisAdapter(),
    "folder": FolderAdapter(),
    "lc25000": Lc25000Adapter(),
    "manifest": ManifestAdapter(),
    "multi_cancer": MultiCancerAdapter(),
    "nct_crc": NctCrcAdapter(),
    "patchcamelyon": PatchCamelyonAdapter(),
    "phantom": PhantomAdapter(),
}

_TABLES = frozenset({".csv", ".h5"})
_READ_TABLES = ("manifest", "patchcamelyon")
"""Adapters that read tables."""


@dataclass(frozen=True)
class Scanned:
    """What is in a data set, before any tile is opened.

    Attributes:
        root: the data set's folder, in which the tiles lie unless the adapter writes them out (`unpacked`).
        tiles: sorted by tile_id.
        passed_over: what else is in the data set, without hidden files.
        made_up: whether the data set is a phantom.
    """

    root: Path
    tiles: list[RawTile]
    passed_over: PassedOver
    made_up: bool


def scan(settings: IngestSettings, root: Path, unpacked: Path, progress: Progress | None = None) -> Scanned:
    """List a data set's tiles with the adapter that `settings.adapter` names.

    Args:
        settings: section `ingest`.
        root: a folder, an archive of one, or what else the adapter takes.
        unpacked: where files of an archive, and tiles that are no image files yet, are written; it is left empty of
            what other data have brought.
        progress: called while an archive is unpacked, with its bytes done and in all.

    Raises:
        DataError: the root is not there, the archive cannot be unpacked, an organ has a name that settings cannot
            hold, or nothing is laid out as the adapter expects; the message then names the adapters that would fit.
    """
    if not is_text(str(root)):
        raise DataError(f"ingest.root {root!r}: its name is not UTF-8, and tables could not hold it; rename the folder")
    folder, left = _folder(settings, root, unpacked, progress)
    try:
        tiles = ADAPTERS[settings.adapter].scan(folder, settings, unpacked)
    except NothingFitsError as error:
        others = [name for name, adapter in ADAPTERS.items() if name != settings.adapter and adapter.fits(folder)]
        hint = f"\nit looks like ingest.adapter: {' or '.join(others)}" if others else ""
        raise DataError(f"ingest.adapter {settings.adapter}: {error}{hint}") from None
    check_organs(settings.adapter, tiles)
    if folder.is_file():  # a manifest: of the folder around it, only what it names is the data set
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
    """Whether a file that is no tile was read all the same, or belongs to a phantom."""
    if made_up and (path.name == MARKER or MASKS in path.parts):
        return True
    return adapter in _READ_TABLES and path.suffix.lower() in _TABLES


def _folder(settings: IngestSettings, root: Path, unpacked: Path, progress: Progress | None) -> tuple[Path, PassedOver]:
    """The data set as the adapter takes it: what an archive holds, or the root itself; and what was not unpacked."""
    if not root.exists():
        raise DataError(f"ingest.root {root}: no such folder or file; put the data there, or name another place")
    if is_archive(root):
        return unpacked, unpack(root, unpacked, _wanted, progress)
    if root.is_file() and settings.adapter != "manifest":
        known = ", ".join((*ZIP_SUFFIXES, *TAR_SUFFIXES))
        raise DataError(f"ingest.root {root}: is a file; give a folder, or an archive that ends with one of {known}")
    if settings.adapter != "patchcamelyon" or (unpacked / STAMP).is_file():
        discard(unpacked)
    return root, PassedOver()


def _wanted(member: PurePosixPath) -> bool:
    return is_image(member.name) or member.suffix.lower() in _TABLES or member.name == MARKER
