"""Opening a data set: archives are unpacked, and tiles in HDF5 are written to image files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oncoshift.data.names import is_text
from oncoshift.data.source.adapters.base import WritesTiles
from oncoshift.data.source.adapters.folder import MARKER
from oncoshift.data.source.adapters.registry import ADAPTERS, load_adapter
from oncoshift.data.source.archives import TAR_SUFFIXES, ZIP_SUFFIXES, is_archive, unpack
from oncoshift.data.source.folders import TABLE_SUFFIXES, is_image
from oncoshift.data.source.made_once import STAMP, discard
from oncoshift.data.source.passed_over import PassedOver
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from oncoshift.parallel import Progress


@dataclass(frozen=True)
class DataSet:
    """A data set whose tiles can be listed; see `oncoshift.data.source.scan`.

    Attributes:
        root: its folder, or a file that the adapter accepts instead.
        unpacked: the folder of extracted tiles; it need not exist if there are none.
        passed_over: members of an archive that were not unpacked.
    """

    root: Path
    unpacked: Path
    passed_over: PassedOver = field(default_factory=PassedOver)


def open_data_set(adapter: str, root: Path, unpacked: Path, progress: Progress | None = None) -> DataSet:
    """Open a data set.

    Args:
        adapter: the adapter's name.
        root: a folder, an archive of one, or what else the adapter accepts.
        unpacked: where archives and tiles inside of other files are extracted; what other data left
            there is removed.
        progress: called while an archive is unpacked, with its bytes done and in total.

    Raises:
        DataError: the root does not exist or is not a data set, or the archive cannot be unpacked.
    """
    check_root(adapter, root)
    writer = load_adapter(adapter)
    if is_archive(root):
        data_set = DataSet(unpacked, unpacked, unpack(root, unpacked, _is_wanted, progress))
    else:
        if not isinstance(writer, WritesTiles) or (unpacked / STAMP).is_file():
            discard(unpacked)
        data_set = DataSet(root, unpacked)
    if isinstance(writer, WritesTiles):
        writer.write_tiles(data_set.root, unpacked)
    return data_set


def check_root(adapter: str, root: Path) -> None:
    """Check that the adapter can read `ingest.root`.

    Raises:
        DataError: it does not exist, its name is not UTF-8, or it is a file of an unknown kind.
    """
    if not is_text(str(root)):
        raise DataError(f"ingest.root {root!r}: its name is not UTF-8, and tables could not hold it; rename the folder")
    if not root.exists():
        raise DataError(f"ingest.root {root}: no such folder or file; put the data there, or name another place")
    if root.is_file() and not is_archive(root) and not ADAPTERS[adapter].takes_file:
        known = ", ".join((*ZIP_SUFFIXES, *TAR_SUFFIXES))
        raise DataError(f"ingest.root {root}: is a file; give a folder, or an archive that ends with one of {known}")


def _is_wanted(member: PurePosixPath) -> bool:
    return is_image(member.name) or member.suffix.lower() in TABLE_SUFFIXES or member.name == MARKER
