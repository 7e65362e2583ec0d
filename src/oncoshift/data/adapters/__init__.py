"""How data sets are laid out: one file an adapter, by its name in `ingest.adapter`; folders and archives alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.data.adapters.base import NothingFitsError, is_image
from oncoshift.data.adapters.breakhis import BreakhisAdapter
from oncoshift.data.adapters.folder import MARKER, FolderAdapter
from oncoshift.data.adapters.lc25000 import Lc25000Adapter
from oncoshift.data.adapters.manifest import ManifestAdapter
from oncoshift.data.adapters.multi_cancer import MultiCancerAdapter
from oncoshift.data.adapters.nct_crc import NctCrcAdapter
from oncoshift.data.adapters.organs import check_organs
from oncoshift.data.adapters.patchcamelyon import PatchCamelyonAdapter
from oncoshift.data.adapters.phantom import PhantomAdapter, is_made_up
from oncoshift.data.archives import STAMP, TAR_SUFFIXES, ZIP_SUFFIXES, discard, is_archive, unpack
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from oncoshift.data.adapters.base import Adapter, RawTile
    from oncoshift.data.parallel import Progress
    from oncoshift.settings import Ingest

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


@dataclass(frozen=True)
class Scanned:
    """What is in a data set, before any tile is opened.

    Attributes:
        tiles: sorted by tile_id.
        made_up: whether the data set is a phantom.
    """

    tiles: list[RawTile]
    made_up: bool


def scan(settings: Ingest, root: Path, unpacked: Path, progress: Progress | None = None) -> Scanned:
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
    root = _folder(settings, root, unpacked, progress)
    try:
        tiles = ADAPTERS[settings.adapter].scan(root, settings, unpacked)
    except NothingFitsError as error:
        others = [name for name, adapter in ADAPTERS.items() if name != settings.adapter and adapter.fits(root)]
        hint = f"\nit looks like ingest.adapter: {' or '.join(others)}" if others else ""
        raise DataError(f"ingest.adapter {settings.adapter}: {error}{hint}") from None
    check_organs(settings.adapter, tiles)
    return Scanned(tiles, is_made_up(root))


def _folder(settings: Ingest, root: Path, unpacked: Path, progress: Progress | None) -> Path:
    """The data set as the adapter takes it: what an archive holds, or the root itself."""
    if not root.exists():
        raise DataError(f"ingest.root {root}: no such folder or file; put the data there, or name another place")
    if is_archive(root):
        unpack(root, unpacked, _wanted, progress)
        return unpacked
    if root.is_file() and settings.adapter != "manifest":
        known = ", ".join((*ZIP_SUFFIXES, *TAR_SUFFIXES))
        raise DataError(f"ingest.root {root}: is a file; give a folder, or an archive that ends with one of {known}")
    if settings.adapter != "patchcamelyon" or (unpacked / STAMP).is_file():
        discard(unpacked)
    return root


def _wanted(member: PurePosixPath) -> bool:
    return is_image(member.name) or member.suffix.lower() in _TABLES or member.name == MARKER
