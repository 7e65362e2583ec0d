"""A tar reader that holds a stranger's headers to limits; what comes between files is read whole by `tarfile`."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from typing import Self

MAX_DESCRIPTION = 2**20
"""Bytes that may describe one member beside its header (long names, pax records): the longest path has 4,096."""

MAX_HEADERS = 8
"""Headers that may describe one member: a long name, a long link, pax records and what holds for all members."""

_DESCRIBING = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip

_BROKEN_HEADERS = (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined]


class HeaderRefusedError(tarfile.TarError):
    """A header that would cost more memory or time than a tile set's does; says which and what to do."""


class LimitedHeader(tarfile.TarInfo):
    """A member's header, or one that describes the member after it.

    `tarfile` names `_proc_member` as the method to override.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Read the next header; a broken one is an error, where `tarfile` takes it for the archive's end."""
        try:
            return super().fromtarfile(tar)
        except _BROKEN_HEADERS as error:
            raise tarfile.ReadError(f"header at byte {tar.offset:,}: {error}") from None

    def _proc_member(self, tar: LimitedTar) -> Self:
        if self.size < 0:
            _refuse(self, f"says that it has {self.size} bytes; fetch the archive again")
        if self.type == tarfile.GNUTYPE_SPARSE:
            _refuse_sparse(self)
        if self.type in _DESCRIBING:
            tar.count(self)
        else:
            tar.start_again()
        member: Self = super()._proc_member(tar)  # type: ignore[misc]
        return member

    def _proc_gnusparse_00(self, following: tarfile.TarInfo, *_: Any) -> NoReturn:
        _refuse_sparse(following)

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


class LimitedTar(tarfile.TarFile):
    """A tar file with `LimitedHeader`s; open it with `LimitedTar.open`."""

    tarinfo = LimitedHeader
    _described = 0
    _headers = 0
    _lasting = 0

    def count(self, header: LimitedHeader) -> None:
        """Count a header that describes the next member, before its body is read.

        Raises:
            HeaderRefusedError: the member has more of them than any file needs.
        """
        self._described += header.size
        self._headers += 1
        if header.type == tarfile.XGLTYPE:  # stays in memory to the archive's end
            self._lasting += header.size
        if self._described > MAX_DESCRIPTION or self._headers > MAX_HEADERS:
            _refuse(
                header,
                f"has {self._headers} extra headers of {self._described:,} bytes, and no file needs more than "
                f"{MAX_HEADERS} of {MAX_DESCRIPTION:,}; pack the files again with plain names",
            )

    def start_again(self) -> None:
        """A member has come; what holds for all members stays counted."""
        self._described, self._headers = self._lasting, 0


def _refuse_sparse(header: tarfile.TarInfo) -> NoReturn:
    _refuse(header, "is stored with holes; pack the files again without --sparse")


def _refuse(header: tarfile.TarInfo, why: str) -> NoReturn:
    raise HeaderRefusedError(f"member {header.name!r} {why}")
