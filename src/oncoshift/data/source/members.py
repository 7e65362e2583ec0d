"""Reading the images of an archive one by one, without unpacking it to disk."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, TYPE_CHECKING

from oncoshift.data.names import is_hidden
from oncoshift.data.source.archives import ZIP_SUFFIXES, check_zip_member, explain_errors, resolve_member
from oncoshift.data.source.folders import is_image
from oncoshift.data.source.tar_members import read_tar_members
from oncoshift.serving.limits import UnreadableImageError, check_bytes

if TYPE_CHECKING:
    from pathlib import Path

Member = tuple[str, Callable[[], bytes]]
"""A member's name, and a function that reads its bytes. The function must be called before the next
member is asked for; it raises `UnreadableImageError` if the member is too large or damaged."""


def read_images(archive: Path) -> Iterator[Member]:
    """Yield the images of an archive, without hidden ones, in the archive's order.

    Args:
        archive: see `archives.is_archive`.

    Raises:
        DataError: the archive is damaged, encrypted or compressed in an unusual way, or a member
            points outside of it, is a link or a device.
    """
    is_zip = archive.name.lower().endswith(ZIP_SUFFIXES)
    with explain_errors(archive):
        for name, load in _read_zip(archive) if is_zip else _read_tar(archive):
            path = resolve_member(archive, name)
            if is_image(path.name) and not any(map(is_hidden, path.parts)):
                yield path.as_posix(), load


def _read_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        members = [member for member in file.infolist() if not member.is_dir()]
        for member in members:
            check_zip_member(archive, member)
        for member in members:
            yield member.filename, partial(_read_zip_member, file, member)


def _read_zip_member(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    check_bytes(member.file_size)
    try:
        with file.open(member) as content:
            return content.read()
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UnreadableImageError(f"damaged in the archive: {error}") from error


def _read_tar(archive: Path) -> Iterator[Member]:
    with archive.open("rb") as raw:
        for member, _, content in read_tar_members(archive, raw):
            if content is not None:
                yield member.name, partial(_read_tar_member, content, member.size)


def _read_tar_member(content: IO[bytes], size: int) -> bytes:
    check_bytes(size)
    return content.read()
