"""Digests of a registered model's files, so that a changed file is reported and never loaded.

They lie among the files as `SHA256SUMS`, which `sha256sum -c` reads; the digest of that list is a
tag of the version.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from oncoshift.errors import RegistryError
from oncoshift.files import sha256_file

if TYPE_CHECKING:
    from pathlib import Path

SUMS = "SHA256SUMS"
SUMS_TAG = "oncoshift.sha256sums"
"""Tag of a version and of its logged model: SHA-256 of the list."""

_REMEDY = (
    "it is not used; restore its files from a backup, or make another version champion (`oncoshift rollback`, "
    "`oncoshift promote`)"
)

_log = logging.getLogger(__name__)


def write_sums(folder: Path) -> str:
    """Write the digests of a model folder's files, and return the digest of that list."""
    (folder / SUMS).write_text(_list_sums(folder), encoding="utf-8")
    return sha256_file(folder / SUMS)


def digest_folder(folder: Path) -> str:
    """Return the digest of the list of a model's files; computed if the list was not written."""
    if (folder / SUMS).is_file():
        return sha256_file(folder / SUMS)
    return hashlib.sha256(_list_sums(folder).encode()).hexdigest()


def check_sums(folder: Path, name: str, noted: str | None) -> None:
    """Check a model's files against their digests; warn if it was registered without any.

    Args:
        folder: folder of the model.
        name: name of the version, for messages.
        noted: value of the tag `SUMS_TAG`, if there is one.

    Raises:
        RegistryError: a file is missing or has changed, or the model's code has an additional file.
    """
    if noted is None and not (folder / SUMS).is_file():
        _log.warning("%s: was registered without digests; whether its files have changed cannot be told", name)
        return
    if noted is not None:
        _check(folder, SUMS, noted, name)
    digests = read_sums(folder)
    for file, expected in digests.items():
        _check(folder, file, expected, name)
    listed = {folder / file for file in digests}
    # Python imports from there; elsewhere MLflow leaves files of its own, which are never executed.
    code = {file for file in (folder / "code").rglob("*") if file.is_file() and file.parent.name != "__pycache__"}
    if code - listed:
        raise RegistryError(f"{name}: {min(code - listed)}: was not registered with the model; {_REMEDY}")


def read_sums(folder: Path) -> dict[str, str]:
    """Read the list of a model folder: file, relative to the folder → SHA-256."""
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    return {file: digest for digest, _, file in (line.partition("  ") for line in lines)}


def _list_sums(folder: Path) -> str:
    # Python leaves compiled code in the folder of a model that was loaded.
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and file.name != SUMS and file.parent.name != "__pycache__"
    )
    return "".join(f"{sha256_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)


def _check(folder: Path, file: str, expected: str, name: str) -> None:
    found = sha256_file(folder / file) if (folder / file).is_file() else "no such file"
    if found != expected:
        raise RegistryError(f"{name}: {folder / file}: damaged: expected SHA-256 {expected}, found {found}; {_REMEDY}")
