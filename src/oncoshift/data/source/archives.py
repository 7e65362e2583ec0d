"""Unpacking archives of tiles (.zip, .tar, compressed .tar), atomically and inside one folder.

An archive is not trusted: a member's name may point anywhere, and a few kilobytes may unpack to
terabytes.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from oncoshift.data.names import is_hidden
from oncoshift.data.source.made_once import fill_once
from oncoshift.data.source.passed_over import PassedOver
from oncoshift.data.source.tar_members import read_tar_members
from oncoshift.errors import DataError
from oncoshift.files import FULL, sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oncoshift.parallel import Progress

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

MAX_MEMBERS = 2_000_000
"""Most members of an archive. The largest published tile sets have a third of a million files; a
bomb of empty files would exhaust the file system."""

MAX_RATIO = 100
"""Largest ratio of unpacked to packed bytes. JPEG and PNG are compressed already, plain TIFFs
shrink to a third; a bomb has 1,032."""

SMALL = 2**26
"""Unpacked bytes up to which the ratio is ignored: 64 MB do no harm, and flat test images compress
well."""

RESERVE = 2**30
"""Bytes of the disk that stay free, for the packs and for everything else that needs the disk."""

_CHUNK = 2**20
_ENCRYPTED = 0x1
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ"}
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError,
)  # fmt: skip


def is_archive(path: Path) -> bool:
    """Whether a path is a file that `unpack` accepts, by its name."""
    return path.is_file() and path.name.lower().endswith((*ZIP_SUFFIXES, *TAR_SUFFIXES))


def unpack(
    archive: Path, target: Path, keep: Callable[[PurePosixPath], bool], progress: Progress | None = None
) -> PassedOver:
    """Replace the folder `target` by the members of an archive.

    The same archive is not unpacked again. A process that is killed leaves `target` as it was, or
    absent.

    Args:
        archive: see `is_archive`.
        target: the folder to replace.
        keep: decides by a member's path whether to unpack it; hidden files never are.
        progress: called with bytes of the archive done and in total.

    Returns:
        The members that were not kept, without hidden ones.

    Raises:
        DataError: the archive is damaged, encrypted or compressed in an unusual way; a member would
            lie outside of `target`, is a link or a device, or is named twice; it is a bomb by
            `MAX_MEMBERS`, `MAX_RATIO`, the disk's free space or the limits of `read_tar_members`.
            Nothing is left.
    """
    name = archive.name.lower()

    def fill(folder: Path) -> dict[str, Any]:
        budget = _Budget.of(archive, folder)
        step = _count_bytes(archive, progress)
        wanted = _Writer(archive, folder, keep, budget)
        with explain_errors(archive):
            (_unzip if name.endswith(ZIP_SUFFIXES) else _untar)(archive, wanted, step)
        if not wanted.written:
            raise DataError(f"{archive}: holds {budget.members} members, and no tiles (images, CSV or HDF5) among them")
        return asdict(wanted.passed_over)

    return PassedOver(**fill_once(target, {"archive": sha256_file(archive)}, fill))


def resolve_member(archive: Path, name: str) -> PurePosixPath:
    """Resolve a member's path below the folder it is unpacked to.

    Raises:
        DataError: the path is outside of the folder, or the name is not possible for a file.
    """
    path = PurePosixPath(name.replace("\\", "/"))  # archives of old Windows programs
    drive = path.parts and len(path.parts[0]) > 1 and path.parts[0][1] == ":"
    if path.is_absolute() or drive or ".." in path.parts:
        raise DataError(f"{archive}: member {name!r} would be written outside of its folder; this archive is not safe")
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
        raise DataError(f"{archive}: member {name!r} has a name that is no text; pack the files again with plain names")
    return path


@dataclass
class _Budget:
    """The limits on what an archive may still unpack to."""

    archive: Path
    allowed: int
    free: int
    members: int = 0
    unpacked: int = 0

    @classmethod
    def of(cls, archive: Path, folder: Path) -> _Budget:
        allowed = max(SMALL, archive.stat().st_size * MAX_RATIO)
        return cls(archive, allowed, shutil.disk_usage(folder).free - RESERVE)

    def spend(self, size: int, headers: int = 0) -> None:
        """Count a member of `size` bytes and its headers; skipping one takes as long."""
        if size < 0:
            raise DataError(f"{self.archive}: damaged, a member says that it has {size} bytes; fetch it again")
        self.members += 1
        self.unpacked += size + headers
        if self.members > MAX_MEMBERS:
            raise DataError(f"{self.archive}: more than {MAX_MEMBERS} members; refused as a decompression bomb")
        if self.unpacked > self.allowed:
            raise DataError(
                f"{self.archive}: unpacks to more than {MAX_RATIO} times its size; refused as a decompression bomb. "
                "If you trust it, unpack it yourself and set ingest.root to the folder"
            )
        if self.unpacked > self.free:
            raise DataError(
                f"{self.archive}: unpacks to {self.unpacked:,} bytes or more, and the disk has {max(self.free, 0):,} "
                "to spare; make room, or unpack it elsewhere and set ingest.root to the folder"
            )


@dataclass
class _Writer:
    """A writer of the members that are kept."""

    archive: Path
    folder: Path
    keep: Callable[[PurePosixPath], bool]
    budget: _Budget
    written: set[str] = field(default_factory=set)
    passed_over: PassedOver = field(default_factory=PassedOver)

    def path(self, name: str) -> Path | None:
        """Determine where to write a member; None if it is not kept."""
        inside = resolve_member(self.archive, name)
        if any(map(is_hidden, inside.parts)):
            return None
        if not self.keep(inside):
            self.passed_over.add(inside)
            return None
        if inside.as_posix() in self.written:
            raise DataError(f"{self.archive}: member {name!r} is there twice; pack the files again with one of them")
        self.written.add(inside.as_posix())
        return self.folder / inside

    def write(self, path: Path, member: IO[bytes]) -> None:
        """Copy a member's bytes to a path returned by `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            shutil.copyfileobj(member, file, _CHUNK)


def _unzip(archive: Path, wanted: _Writer, step: Callable[[int], None]) -> None:
    with zipfile.ZipFile(archive) as file:
        members = [member for member in file.infolist() if not member.is_dir()]
        for member in file.infolist():
            check_zip_member(archive, member)
            wanted.budget.spend(member.file_size)  # all sizes are known before the first byte is written
        for member in members:
            path = wanted.path(member.filename)
            if path is not None:
                with file.open(member) as content:
                    wanted.write(path, content)
            step(member.header_offset + member.compress_size)


def check_zip_member(archive: Path, member: zipfile.ZipInfo) -> None:
    """Check that a member can be read within bounds, and that it is a file or a folder.

    Raises:
        DataError: it is a link or a device, encrypted or compressed in an unusual way, or its path
            is outside of the folder.
    """
    resolve_member(archive, member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"{archive}: member {member.filename!r} is a link or a device; pack the files themselves")
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{archive}: is encrypted; unpack it yourself and name the folder instead")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The other decoders of zipfile return all that a chunk unpacks to at once, without a bound.
        method = _METHODS.get(member.compress_type, f"method {member.compress_type}")
        raise DataError(
            f"{archive}: member {member.filename!r} is compressed with {method}, and only deflate or none is taken; "
            "zip the files again without that option, or unpack it yourself and name the folder instead"
        )


def _untar(archive: Path, wanted: _Writer, step: Callable[[int], None]) -> None:
    with archive.open("rb") as raw:
        for member, headers, content in read_tar_members(archive, raw):
            resolve_member(archive, member.name)
            wanted.budget.spend(member.size, headers)
            tarfile.data_filter(member, str(wanted.folder))
            path = wanted.path(member.name) if content is not None else None
            if path is not None and content is not None:
                wanted.write(path, content)
            step(raw.tell())


@contextmanager
def explain_errors(archive: Path) -> Iterator[None]:
    """Turn errors of the archive's format into errors that say what to do."""
    try:
        yield
    except _BROKEN as error:
        raise DataError(f"{archive}: damaged, or not what its name says ({error}); fetch it again") from error
    except RuntimeError as error:  # zipfile's word for a missing password
        raise DataError(f"{archive}: cannot be unpacked: {error}") from error
    except OSError as error:
        if error.errno in FULL:
            raise  # not the archive's fault
        raise DataError(f"{archive}: cannot be unpacked: {error.strerror or error}") from error


def _count_bytes(archive: Path, progress: Progress | None) -> Callable[[int], None]:
    size = archive.stat().st_size

    def step(done: int) -> None:
        if progress is not None:
            progress(min(done, size), size)

    return step
