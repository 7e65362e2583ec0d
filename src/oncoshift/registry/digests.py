"""Digests of a registered model's files, so that one that has changed is named and never asked.

They lie among the files as `SHA256SUMS`, which `sha256sum -c` reads; the digest of that list is a tag of the version.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from oncoshift.errors import RegistryError
from oncoshift.files import sha256_file

if TYPE_CHECKING:
    from pathlib import Path

SUMS = "SHA256SUMS"
SUMS_TAG = "oncoshift.sha256sums"
"""On a version and on its logged model: SHA-256 of the list."""

_REMEDY = (
    "it is not used; bring its files back from a backup, or make another version champion (`oncoshift rollback`, "
    "`oncoshift promote`)"
)

_log = logging.getLogger(__name__)


def write_sums(folder: Path) -> str:
    """Write the list of a model folder's files and their digests; return the list's own."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    lines = (f"{sha256_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    return sha256_file(folder / SUMS)


def check_sums(folder: Path, name: str, noted: str | None) -> None:
    """Compare a model's files with their digests; what an earlier version registered without passes with a warning.

    Args:
        folder: of the model.
        name: of the version, for messages.
        noted: the tag `SUMS_TAG`, if there is one.

    Raises:
        RegistryError: a file is gone, or is not what was registered, or the model's code has one more.
    """
    if noted is None and not (folder / SUMS).is_file():
        _log.warning("%s: was registered without digests; whether its files have changed cannot be told", name)
        return
    if noted is not None:
        _check(folder, SUMS, noted, name)
    listed = set()
    for line in (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        expected, _, file = line.partition("  ")
        _check(folder, file, expected, name)
        listed.add(folder / file)
    # Python imports from there; elsewhere MLflow leaves notes of its own, which nothing runs.
    code = {file for file in (folder / "code").rglob("*") if file.is_file() and file.parent.name != "__pycache__"}
    if code - listed:
        raise RegistryError(f"{name}: {min(code - listed)}: was not registered with the model; {_REMEDY}")


def _check(folder: Path, file: str, expected: str, name: str) -> None:
    found = sha256_file(folder / file) if (folder / file).is_file() else "no such file"
    if found != expected:
        raise RegistryError(f"{name}: {folder / file}: damaged: expected SHA-256 {expected}, found {found}; {_REMEDY}")
