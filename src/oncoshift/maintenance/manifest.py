"""What a backup holds: its backup.json, and the digests of its files."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from oncoshift.errors import OncoshiftError
from oncoshift.files import hold_lock, read_json, sha256_file, write_json
from oncoshift.registry.digests import SUMS, read_sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
MANIFEST = "backup.json"
TRACKING, STUDIES, CACHE, PROJECT, ARTIFACTS = "tracking", "studies", "cache", "project", "artifacts"
"""Folders of a backup; artifacts are in that of MLflow's database."""


class BackupError(OncoshiftError):
    """A backup cannot be made or restored as asked."""


@dataclass(frozen=True)
class Backup:
    """What a backup holds, as its backup.json says.

    Attributes:
        format: of this description.
        made: when, ISO 8601 in UTC.
        oncoshift: version of oncoshift that made it.
        kinds: kind of each saved database, `sqlite` or `postgresql`, by its folder.
        schemas: version of each database's tables, by its folder.
        roots: artifact locations in MLflow's database whose files are in the backup.
        files: number of files.
        size: their bytes.
        sums: SHA-256 of `SHA256SUMS`.
        notes: what is not in it although something names it, and files that had changed before.
    """

    format: int
    made: str
    oncoshift: str
    kinds: dict[str, str]
    schemas: dict[str, str]
    roots: tuple[str, ...]
    files: int
    size: int
    sums: str
    notes: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write it into the backup's folder."""
        write_json(folder / MANIFEST, asdict(self))


@contextmanager
def maintaining(project: Path) -> Iterator[None]:
    """Exclude other backups, restorations and collections of garbage in a project.

    Raises:
        BackupError: there is one.
    """
    lock = project / "runs" / "maintenance.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    busy = BackupError(f"{project}: another backup, restore or gc is at work; wait until it is done")
    with hold_lock(lock, busy=lambda: busy):
        yield


def locate_database(folder: Path, name: str) -> Path:
    """Return the path of a saved database.

    Args:
        folder: of the backup.
        name: `TRACKING` or `STUDIES`.
    """
    return folder / name / "database"


def read_backup(folder: Path) -> Backup:
    """Read what a backup holds, and compare every file with its digest.

    Raises:
        BackupError: it is no backup, an incomplete one, of a later format, or a file has changed or
            is missing.
    """
    if not (folder / MANIFEST).is_file():
        raise BackupError(f"{folder}: has no {MANIFEST}, so it is no backup, or not a whole one")
    values = read_json(folder / MANIFEST, "format", "sums")
    if values["format"] > FORMAT:
        raise BackupError(f"{folder}: a later oncoshift ({values['oncoshift']}) made it; install that version")
    backup = Backup(**{**values, "roots": tuple(values["roots"]), "notes": tuple(values["notes"])})
    _check(folder / SUMS, backup.sums)
    for file, digest in read_sums(folder).items():
        _check(folder / file, digest)
    return backup


def _check(file: Path, expected: str) -> None:
    found = sha256_file(file) if file.is_file() else "no such file"
    if found != expected:
        raise BackupError(
            f"{file}: has changed since the backup was made: expected SHA-256 {expected}, found {found}; nothing was "
            "restored, use another backup"
        )
