"""Reading the members of a tar with `tarfile`, with limits on what untrusted headers can cost."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase, BufferedReader
    from pathlib import Path

MAX_DESCRIPTION = 2**20
"""Most bytes of all headers of one member (long names, pax records); the longest path has 4,096."""

MAX_HEADERS = 8
"""Most extra headers of one member: a long name, a long link, pax records, and those that apply to
all members."""

MAX_COMMON = 64
"""Most pax records that apply to all members; they stay in memory until the archive's end."""

_MAX_READS = 2 * MAX_HEADERS + 2
"""Most reads for one member: two for each extra header, one for its own, and one to skip the member
before it."""

_DECODERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
"""First bytes of a stream, and the decoder for it."""


def read_tar_members(archive: Path, raw: BufferedReader) -> Iterator[tuple[tarfile.TarInfo, int, IO[bytes] | None]]:
    """Yield each member of a tar, the size of its headers in bytes and, for a file, its content.

    Args:
        archive: the tar, compressed or not; named in errors.
        raw: the archive, opened.

    Raises:
        DataError: a member has more headers than any file needs, declares a negative size, is
            sparse, or is a link or a device.
        tarfile.TarError: the archive is damaged.
    """
    with _decompressing(raw) as stream:
        headers = _Headers(archive, stream)
        # Reading a tar needs only `read`, `seek` and `tell`; opening it reads the first header.
        with tarfile.open(fileobj=headers, mode="r:") as tar:  # type: ignore[call-overload]
            while (member := _read_next(tar, headers)) is not None:
                size = headers.taken
                _check_member(archive, tar, member)
                yield member, size, tar.extractfile(member) if member.isfile() else None
                tar.members.clear()  # there is no documented way to keep this list from growing
                headers.start()


class _Headers:
    """The stream of a tar, which limits the size of one member's headers.

    `tarfile` reads a header's body completely, whatever size it declares, and any number of headers
    before it returns a member. So the limit has to be in the stream.
    """

    def __init__(self, archive: Path, stream: BufferedIOBase) -> None:
        self._archive, self._stream = archive, stream
        self.last = b""
        self.start()

    def start(self) -> None:
        """Start counting the headers of the next member."""
        self.is_limited, self.taken, self._reads = True, 0, 0

    def read(self, size: int = -1) -> bytes:
        if self.is_limited:
            self._count(size)
        self.last = self._stream.read(size)
        return self.last

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(place, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _count(self, size: int) -> None:
        where = f"{self._archive}: header at byte {self.tell():,}"
        if size < 0:
            raise DataError(f"{where} says that it has {size} bytes; fetch the archive again")
        self.taken += size
        self._reads += 1
        if self._reads > _MAX_READS or self.taken > MAX_DESCRIPTION:
            raise DataError(
                f"{where} and others of one member: no file needs more than {MAX_HEADERS} extra headers of "
                f"{MAX_DESCRIPTION:,} bytes; pack the files again with plain names"
            )


def _read_next(tar: tarfile.TarFile, headers: _Headers) -> tarfile.TarInfo | None:
    """Read the next member; raise on a broken header, which `tarfile` takes for the end."""
    member = tar.next()
    headers.is_limited = False
    if member is None and headers.last.strip(b"\0"):
        raise tarfile.ReadError(f"broken header at byte {headers.tell() - len(headers.last):,}")
    if member is None and _is_header(headers.read(tarfile.BLOCKSIZE)):  # an archive ends with two blocks of zeros
        raise tarfile.ReadError(f"members follow a block of zeros at byte {headers.tell() - 2 * tarfile.BLOCKSIZE:,}")
    return member


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _check_member(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if len(tar.pax_headers) > MAX_COMMON:
        raise DataError(
            f"{archive}: has more than {MAX_COMMON} records that hold for all members; pack the files again without"
        )
    if member.issparse():
        raise DataError(
            f"{archive}: member {member.name!r} is stored with holes; pack the files again without --sparse"
        )
    if not member.isfile() and not member.isdir():
        raise DataError(f"{archive}: member {member.name!r} is a link or a device; pack the files themselves")


@contextmanager
def _decompressing(raw: BufferedReader) -> Iterator[BufferedIOBase]:
    """Open the tar's stream, decompressed according to its first bytes."""
    start = raw.read(max(len(magic) for magic, _ in _DECODERS))
    raw.seek(0)
    decoder = next((decoder for magic, decoder in _DECODERS if start.startswith(magic)), None)
    if decoder is None:
        yield raw
        return
    with decoder(raw) as stream:
        yield stream
