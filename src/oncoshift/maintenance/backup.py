"""Backup of a project: registry, runs, artifacts, studies, data and settings, as one folder.

    backup.json     what it holds; a sealed JSON, written last
    SHA256SUMS      SHA-256 of every other file, which `sha256sum -c` reads
    tracking/       MLflow's database, and the folder `artifacts` beside it
    studies/        Optuna's database
    cache/          objects of DVC's cache
    project/        settings, and what DVC keeps beside them

The databases are copied first, each at one moment. Files of artifacts come after: what a database
names at that moment has been written before, and is not changed later. So a backup may be taken
while a retraining runs. Results that are computed again (trainings' folders, features, Prefect's
records) are not in it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from sqlalchemy import NullPool, create_engine

from oncoshift import __version__
from oncoshift.errors import RegistryError
from oncoshift.files import writing
from oncoshift.maintenance.contents import list_objects, list_settings
from oncoshift.maintenance.databases import exists, find_kind, read_schema_version, save
from oncoshift.maintenance.manifest import (
    ARTIFACTS,
    CACHE,
    FORMAT,
    PROJECT,
    STUDIES,
    TRACKING,
    Backup,
    BackupError,
    locate_database,
    maintaining,
)
from oncoshift.registry.digests import SUMS_TAG, check_sums, write_sums
from oncoshift.registry.embedded import find_artifact_folder, find_database
from oncoshift.registry.relocation import parse_local_folder
from oncoshift.registry.times import get_time
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SUFFIX = ".partial"


@dataclass(frozen=True)
class Stores:
    """The stores of a project.

    Attributes:
        project: the project's root.
        tracking: URL of MLflow's database.
        studies: URL of Optuna's database.
        artifacts: folder of artifacts; None if they are elsewhere, as in a bucket.
    """

    project: Path
    tracking: str
    studies: str
    artifacts: Path | None

    @classmethod
    def find(cls, project: Path, tracking: str, studies: str, artifacts: Path | None) -> Stores:
        """Find the folder of artifacts beside an embedded store, unless one is given."""
        database = find_database(tracking)
        return cls(project, tracking, studies, artifacts or (database and find_artifact_folder(database)))


def make_backup(stores: Stores, destination: Path, say: Callable[[str], None], *, data: bool = True) -> Backup:
    """Make a backup; it appears under its name only when it is whole.

    Args:
        stores: what to save.
        destination: folder to make; a folder above it must be there.
        say: receives lines of progress.
        data: whether to copy the objects of DVC's cache that experiments and runs name.

    Raises:
        BackupError: the destination exists, or another backup runs.
        DataError: the disk is full, or the destination cannot be written.
        DatabaseError: a database cannot be saved.
    """
    destination = destination.absolute()
    if destination.exists():
        raise BackupError(f"{destination}: is there already; name a new folder, such as one of today's date")
    with ExitStack() as stack:
        stack.enter_context(maintaining(stores.project))
        stack.enter_context(writing(destination))
        destination.parent.mkdir(parents=True, exist_ok=True)
        for left in destination.parent.glob(f".{destination.name}.*{_SUFFIX}"):
            shutil.rmtree(left)
        folder = Path(mkdtemp(prefix=f".{destination.name}.", suffix=_SUFFIX, dir=destination.parent))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        backup = _fill(stores, folder, say, data=data)
        os.sync()
        folder.chmod(0o755)
        folder.rename(destination)
    return backup


def _fill(stores: Stores, folder: Path, say: Callable[[str], None], *, data: bool) -> Backup:
    kinds: dict[str, str] = {}
    roots: tuple[str, ...] = ()
    notes: list[str] = []
    for name, url in ((TRACKING, stores.tracking), (STUDIES, stores.studies)):
        if exists(url):
            say(f"{name}: {remove_credentials(url)}")
            (folder / name).mkdir()
            save(url, locate_database(folder, name))
            kinds[name] = find_kind(url)
    schemas = {name: read_schema_version(_as_url(stores, name, folder, kinds)) for name in kinds}
    if TRACKING in kinds:
        url = _as_url(stores, TRACKING, folder, kinds)
        roots, elsewhere = _copy_artifacts(stores, folder, url, say)
        notes += elsewhere + _find_changed_models(url, roots, folder)
    settings = list_settings(stores.project)
    _copy(stores.project, settings, folder / PROJECT)
    if data:
        recorded = _read(_as_url(stores, TRACKING, folder, kinds), _INPUTS) if TRACKING in kinds else []
        notes += _copy_objects(stores.project, [digest for (digest,) in recorded], folder, say)
    sums = write_sums(folder)
    files = [file for file in folder.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    backup = Backup(FORMAT, get_time(), __version__, kinds, schemas, roots, len(files), size, sums, tuple(notes))
    backup.write(folder)
    return backup


_INPUTS = "SELECT DISTINCT digest FROM datasets WHERE dataset_source_type = 'dvc'"
_LOCATIONS = "SELECT DISTINCT artifact_location FROM experiments"
_SUMS = (
    "SELECT v.name, v.version, v.storage_location, t.value FROM model_versions v JOIN model_version_tags t "  # noqa: S608
    f"ON t.name = v.name AND t.version = v.version WHERE t.key = '{SUMS_TAG}' AND v.status = 'READY'"
)


def _as_url(stores: Stores, name: str, folder: Path, kinds: dict[str, str]) -> str:
    """Return the URL to read a saved database by: its copy, or for PostgreSQL the original."""
    if kinds[name] == "sqlite":
        return f"sqlite:///{locate_database(folder, name)}"
    return stores.tracking if name == TRACKING else stores.studies


def _read(url: str, query: str) -> list[tuple[Any, ...]]:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def _copy_artifacts(
    stores: Stores, folder: Path, url: str, say: Callable[[str], None]
) -> tuple[tuple[str, ...], list[str]]:
    """Copy the folder of artifacts; return the locations that mean it, and notes on others."""
    own = stores.artifacts
    if own is not None and own.is_dir():
        files = [file.relative_to(own) for file in own.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
        say(f"artifacts: {len(files)} files")
        _copy(own, files, folder / TRACKING / ARTIFACTS)
    places = sorted(place for (place,) in _read(url, _LOCATIONS) if place)
    roots = tuple(place for place in places if own is not None and parse_local_folder(place) == own)
    others = (place for place in places if place not in roots and _may_hold_files(place, own))
    return roots, [f"not in this backup: artifacts in {remove_credentials(place)}" for place in others]


def _may_hold_files(place: str, own: Path | None) -> bool:
    local = parse_local_folder(place)
    if place.startswith("mlflow-artifacts:"):  # kept by a server, in the folder given or in one that it knows
        return own is None
    return local is None or (local.is_dir() and any(local.iterdir()))


def _find_changed_models(url: str, roots: Iterable[str], folder: Path) -> list[str]:
    """Compare the copied files of registered versions with their digests."""
    notes = []
    for name, version, place, noted in _read(url, _SUMS):
        root = next((root for root in roots if str(place).startswith(f"{root}/")), None)
        if root is None:
            continue
        try:
            check_sums(folder / TRACKING / ARTIFACTS / place[len(root) + 1 :], f"{name} version {version}", noted)
        except (RegistryError, OSError) as error:
            notes.append(f"saved as it is, though damaged: {error}")
    return notes


def _copy_objects(project: Path, recorded: list[str], folder: Path, say: Callable[[str], None]) -> list[str]:
    objects = list_objects(project, recorded)
    say(f"data: {len(objects.files)} objects of DVC's cache")
    _copy(objects.cache, objects.files, folder / CACHE)
    if not objects.missing:
        return []
    missing = f"{len(objects.missing)} objects that are not in DVC's cache, such as {objects.missing[0]}"
    return [f"not in this backup: {missing}; `dvc pull` brings them from a remote"]


def _copy(source: Path, files: Iterable[Path], target: Path) -> None:
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / file, target / file)
