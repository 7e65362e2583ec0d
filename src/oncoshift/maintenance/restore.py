"""Restoration of a backup into an empty place, or over what is there if that is asked for.

Nothing is written before every file of the backup has been compared with its digest, and the place
is known to be free. The databases come last: a restoration that was killed is started again, and
passes over the files that are there already.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from oncoshift.experiments import resolve_tracking_uri, resolve_url
from oncoshift.files import writing
from oncoshift.maintenance.backup import Stores
from oncoshift.maintenance.contents import list_experiments
from oncoshift.maintenance.databases import exists, find_kind, load
from oncoshift.maintenance.manifest import (
    ARTIFACTS,
    CACHE,
    PROJECT,
    STUDIES,
    TRACKING,
    BackupError,
    locate_database,
    maintaining,
    read_backup,
)
from oncoshift.registry.relocation import rename_roots
from oncoshift.registry.store import hold_store
from oncoshift.secrets import remove_credentials
from oncoshift.settings import load_settings
from oncoshift.tuning.lock import study_lock
from oncoshift.versioning import check_out, find_cache

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from oncoshift.maintenance.manifest import Backup


def restore_backup(
    source: Path,
    project: Path,
    environ: MutableMapping[str, str],
    say: Callable[[str], None],
    *,
    artifacts: Path | None = None,
    force: bool = False,
) -> Stores:
    """Restore a backup.

    Args:
        source: folder of the backup.
        project: root of the project to restore into; made if absent.
        environ: may name the store to restore into, as for every command.
        say: receives lines of progress.
        artifacts: folder for artifacts; default: beside an embedded store's database.
        force: whether to replace files and databases that are there; a SQLite database is kept as
            `.bak`.

    Returns:
        The restored stores.

    Raises:
        BackupError: the backup is damaged, or something is there already.
        DatabaseError: a database cannot be restored.
    """
    backup = read_backup(source)
    say(f"{source}: of {backup.made}; {backup.files} files, each as its digest says")
    project = project.absolute()
    stores = _locate_stores(source / PROJECT / "params.yaml", project, environ, artifacts)
    urls = {name: url for name, url in _name_urls(stores).items() if name in backup.kinds}
    _check_kinds(backup, urls, stores)
    if not force:
        _check_free(source, project, urls)
    with ExitStack() as stack:
        project.mkdir(parents=True, exist_ok=True)
        stack.enter_context(maintaining(project))
        stack.enter_context(writing(project, backup.size))
        _copy(source / PROJECT, project)
        if (source / CACHE).is_dir():
            _copy(source / CACHE, find_cache(project))
        if stores.artifacts is not None:
            _copy(source / TRACKING / ARTIFACTS, stores.artifacts)
        os.sync()  # once: flushing each of thousands of small files would take minutes
        for name, url in urls.items():
            say(f"{name}: {remove_credentials(url)}")
            _load(source, backup, stores, name, url)
        if (source / CACHE).is_dir():
            for folder in list_experiments(project):
                say(f"data: {folder}")
                check_out(folder)
    return stores


def _locate_stores(params: Path, project: Path, environ: MutableMapping[str, str], artifacts: Path | None) -> Stores:
    """Find where the saved settings, or the environment, put the stores of a project."""
    if not params.is_file():
        raise BackupError(f"{params}: is not in the backup, so it is not known where its databases belong")
    settings = load_settings(params)
    tracking = resolve_tracking_uri(project, settings.tracking, environ)
    return Stores.find(project, tracking, resolve_url(settings.tune.storage, project), artifacts)


def _name_urls(stores: Stores) -> dict[str, str]:
    return {STUDIES: stores.studies, TRACKING: stores.tracking}  # the registry last: with it, all is there


def _check_kinds(backup: Backup, urls: dict[str, str], stores: Stores) -> None:
    for name, url in urls.items():
        if find_kind(url) != backup.kinds[name]:
            raise BackupError(
                f"{remove_credentials(url)}: the backup's {name} is a database of {backup.kinds[name]}; restore it "
                "into one of the same kind (tracking.uri, tune.storage, MLFLOW_TRACKING_URI)"
            )
    if backup.kinds.get(TRACKING) == "postgresql" and backup.roots and stores.artifacts is None:
        raise BackupError(f"the backup has artifacts of {backup.roots[0]}; name their folder with --artifacts")


def _check_free(source: Path, project: Path, urls: dict[str, str]) -> None:
    taken = [remove_credentials(url) for url in urls.values() if exists(url)]
    for file in (path for path in sorted((source / PROJECT).rglob("*")) if path.is_file()):
        there = project / file.relative_to(source / PROJECT)
        if there.is_file() and not filecmp.cmp(file, there, shallow=False):
            taken.append(str(there))
    if taken:
        raise BackupError(
            f"{project}: is not empty: {', '.join(taken)}; nothing was restored. Restore into another folder "
            "(--to), or replace these with --force"
        )


def _copy(source: Path, target: Path) -> None:
    """Copy a folder's files to where they are absent or differ."""
    for file in (path for path in sorted(source.rglob("*")) if path.is_file()):
        there = target / file.relative_to(source)
        if there.is_file() and filecmp.cmp(file, there, shallow=False):
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        temporary = there.with_name(f".{there.name}.restoring")
        shutil.copy2(file, temporary)
        temporary.replace(there)


def _load(source: Path, backup: Backup, stores: Stores, name: str, url: str) -> None:
    """Restore a database; one that names artifacts names them where they are now."""
    saved = locate_database(source, name)
    if name == STUDIES:
        with study_lock(url):
            load(url, saved, replace=True)
        return
    with TemporaryDirectory() as scratch, hold_store(url):
        if find_kind(url) == "sqlite" and stores.artifacts is not None:
            saved = Path(shutil.copy(saved, scratch))
            rename_roots(saved, backup.roots, stores.artifacts)
        load(url, saved, replace=True)
