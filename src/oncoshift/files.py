"""Atomic writes, file locks, and digests that detect changed bytes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import xxhash

from oncoshift.errors import DataError, OncoshiftError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

_READ = 1 << 18
_SEAL = 32
"""Characters of an XXH3-128 in hex."""

_DIGEST = "digest"

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a write for which there is no room: on the disk, in a quota, or for so large a file."""

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST})


class DamagedFileError(OncoshiftError):
    """A file's bytes are not those that were written: a disk failed, or something changed them."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success, flush it and replace `path` with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        with suppress(OSError):  # some network file systems cannot flush a folder; the file has been
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path, of: str = "") -> None:
    """Remove temporary files of `atomic` that killed processes left behind.

    Args:
        folder: where to look; no other process may be writing there, so the caller must hold the
            folder's lock.
        of: prefix of the names of the files whose temporary files are removed.
    """
    for temporary in folder.glob(f".{of}*.tmp"):
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path, needed: int | None = None) -> Iterator[None]:
    """Report a full disk or refused access during writes to `folder` as an error with advice.

    Args:
        folder: where the block writes; need not exist.
        needed: bytes that the folder will hold in the end, if known.

    Raises:
        DataError: the folder is not writable, checked before the block runs where possible; or,
            while it runs, the disk or a quota is full, or a file or folder may not be opened.
    """
    places = (folder.absolute(), *folder.absolute().parents)
    place = next(place for place in places if os.path.lexists(place))
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise DataError(
            f"{folder}: cannot be written, for {place} is no folder that you may write to; work elsewhere, or give "
            "yourself the right to it"
        )
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            free = f"{shutil.disk_usage(place).free / 1e6:,.0f} MB are free"
            wanted = "" if needed is None else f", and in the end it is to hold {needed / 1e6:,.0f} MB"
            raise DataError(
                f"{folder}: the disk is full ({os.strerror(error.errno)}): {free}{wanted}; nothing is lost: make room, "
                "and run it again"
            ) from error
        if error.errno in _REFUSED:
            raise DataError(
                f"{error.filename or folder}: {error.strerror}; give yourself the right to it, or take it away"
            ) from error
        raise


@contextmanager
def hold_lock(path: Path, busy: Callable[[], Exception] | None = None) -> Iterator[None]:
    """Lock a folder or a file for this process; the system releases the lock when it ends.

    Args:
        path: an existing folder, or a file, which is created if absent.
        busy: makes the error to raise if another process holds the lock; None: wait for it.
    """
    # filelock cannot lock a folder, and a lock file in a folder that DVC tracks would become part
    # of the data.
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise (error if busy is None else busy()) from None
        yield
    finally:
        os.close(file)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file that is there; see `hold_lock`."""
    try:
        with hold_lock(path, busy=BlockingIOError):
            return False
    except BlockingIOError:
        return True


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def xxh3_file(path: Path, size: int | None = None) -> xxhash.xxh3_128:
    """Return the XXH3 (128 bits) of a file's bytes, or of its first `size`, for further updates.

    It runs at memory speed and protects against bit rot, not against tampering.
    """
    digest = xxhash.xxh3_128()
    left = path.stat().st_size if size is None else size
    # One reused buffer stays in the processor's cache; new ones would take longer than the digest.
    buffer = memoryview(bytearray(_READ))
    with path.open("rb", buffering=0) as file:
        while left > 0 and (read := file.readinto(buffer[: min(left, _READ)])):
            digest.update(buffer[:read])
            left -= read
    return digest


def check_file(path: Path, expected: str, size: int | None = None) -> xxhash.xxh3_128:
    """Compare a file, or its first `size` bytes, with the XXH3 recorded when it was written.

    Returns:
        The digest, as from `xxh3_file`.

    Raises:
        DamagedFileError: they differ, or the file is gone.
    """
    if not path.is_file():
        raise DamagedFileError(f"{path}: is gone")
    digest = xxh3_file(path, size)
    if digest.hexdigest() != expected:
        raise _make_damage_error(path, expected, digest.hexdigest())
    return digest


def seal(path: Path, digest: str | None = None) -> None:
    """Append the digest of a file's bytes to the file, so that both are replaced together.

    Args:
        path: of a format whose readers ignore trailing bytes, such as zip and npy.
        digest: XXH3 of its bytes, if already known.
    """
    digest = xxh3_file(path).hexdigest() if digest is None else digest
    with path.open("ab") as file:
        file.write(digest.encode())
    _flush(path)


def check_seal(path: Path) -> None:
    """Compare a file with the digest at its end.

    Raises:
        DamagedFileError: they differ.
    """
    size = max(path.stat().st_size - _SEAL, 0)
    with path.open("rb") as file:
        file.seek(size)
        expected = file.read().decode("latin-1")
    found = xxh3_file(path, size).hexdigest()
    if found != expected:
        raise _make_damage_error(path, expected if expected.isalnum() else "none", found)


def is_intact(path: Path, consequence: str) -> bool:
    """Tell whether a sealed file is there and undamaged; damage is logged, with its consequence."""
    if not path.is_file():
        return False
    try:
        check_seal(path)
    except DamagedFileError as error:
        _log.warning("%s; %s", error, consequence)
        return False
    return True


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON atomically, with a digest of its values as one more key."""
    with atomic(path) as temporary:
        temporary.write_text(seal_json(values), encoding="utf-8")


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """Read what `write_json` wrote; see `open_json`.

    Raises:
        DamagedFileError: see `open_json`.
        FileNotFoundError: there is no such file.
    """
    return open_json(path.read_bytes(), str(path), *needed)


def seal_json(values: dict[str, Any]) -> str:
    """Return JSON with a digest of its values as one more key, for `open_json`."""
    plain = json.loads(json.dumps(values))  # as it will be read: all keys are strings
    return json.dumps({**plain, _DIGEST: _hash_json(plain)}, indent=1, ensure_ascii=False) + "\n"


def open_json(text: bytes, name: str, *needed: str) -> dict[str, Any]:
    """Parse the JSON of `seal_json` and check its digest.

    Args:
        text: the JSON; one without a digest was written by an earlier version, and is accepted with
            a warning.
        name: of the file, for messages.
        needed: required keys.

    Raises:
        DamagedFileError: it is not JSON, its digest differs, or a key is missing.
    """
    try:
        values = json.loads(text)
    except ValueError:
        raise DamagedFileError(f"{name}: damaged: {len(text)} bytes that are not JSON") from None
    missing = [key for key in needed if key not in values] if isinstance(values, dict) else list(needed)
    if missing or not isinstance(values, dict):
        raise DamagedFileError(f"{name}: damaged: JSON without {', '.join(missing) or 'keys'}")
    expected = values.pop(_DIGEST, None)
    if expected is None:
        _log.warning("%s: has no digest, as an earlier version wrote it; whether it has changed cannot be told", name)
    elif (found := _hash_json(values)) != expected:
        raise _make_damage_error(name, expected, found)
    return values


def _hash_json(values: dict[str, Any]) -> str:
    text: str = xxhash.xxh3_128(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return text


def _make_damage_error(path: Path | str, expected: str, found: str) -> DamagedFileError:
    return DamagedFileError(f"{path}: damaged: expected XXH3 {expected}, found {found}")


def _flush(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
