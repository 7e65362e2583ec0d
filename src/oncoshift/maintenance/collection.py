"""Collection of garbage: everything is found first, and removed only if that is asked for.

Removal goes from what names to what is named: a version before its files, a list of files before
the files. So a collection that was killed leaves nothing that names what is gone, and the next one
finds the rest.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oncoshift.experiments import ExperimentError, hold_experiment
from oncoshift.layout import Layout
from oncoshift.maintenance import folder_garbage, registry_garbage
from oncoshift.maintenance.contents import list_experiments
from oncoshift.maintenance.databases import DatabaseError, find_kind
from oncoshift.maintenance.garbage import count_days
from oncoshift.maintenance.manifest import maintaining
from oncoshift.maintenance.uses import Uses
from oncoshift.registry.store import has_store, open_client
from oncoshift.user import find_user_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

    from oncoshift.maintenance.backup import Stores
    from oncoshift.maintenance.garbage import Garbage


@dataclass
class Collection:
    """What a collection found.

    Attributes:
        garbage: things that nothing needs.
        notes: why some places were not looked at.
    """

    garbage: list[Garbage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all garbage."""
        return sum(each.size for each in self.garbage)


@contextmanager
def collecting(stores: Stores, experiment: str, days: float) -> Iterator[tuple[Collection, MlflowClient | None]]:
    """Find garbage, and keep retrainings from starting during the block.

    Args:
        stores: of the project.
        experiment: name of the MLflow experiment of retrainings.
        days: what is younger stays.

    Yields:
        What was found, and a client of the store if there is one.

    Raises:
        BackupError: a backup, a restoration or another collection is at work.
    """
    found, busy = Collection(), False
    with ExitStack() as stack:
        stack.enter_context(maintaining(stores.project))
        for folder in list_experiments(stores.project):
            try:
                stack.enter_context(hold_experiment(Layout(folder)))
            except ExperimentError as error:
                busy = True
                found.notes.append(f"{error}; trainings, trunks, features, packs and DVC's cache were left alone")
        client = open_client(stores.tracking) if has_store(stores.tracking) else None
        if client is None:  # without it, nobody knows what is needed
            found.notes.append("there is no MLflow store, so nothing is known to be garbage")
        else:
            uses = Uses(client, experiment, days)
            found.garbage += [*registry_garbage.find_versions(uses), *registry_garbage.find_runs(uses)]
            if readable := _is_readable(stores.tracking, found.notes):
                found.garbage += _find_in_database(stores, days)
            if readable and not busy:
                found.garbage += _find_in_folders(stores, uses)
        yield found, client


def _is_readable(tracking: str, notes: list[str]) -> bool:
    """Return whether the store's database can be read; a note says why not."""
    try:
        find_kind(tracking)
    except DatabaseError as error:
        notes.append(f"what was deleted in MLflow was left alone: {error}")
        return False
    return True


def _find_in_database(stores: Stores, days: float) -> Iterator[Garbage]:
    yield from registry_garbage.find_trash(stores.tracking, days)
    if stores.artifacts is not None:
        yield from registry_garbage.find_lost_folders(stores.tracking, stores.artifacts, days)


def _find_in_folders(stores: Stores, uses: Uses) -> Iterator[Garbage]:
    yield from folder_garbage.find_jobs(stores.project, uses)
    yield from folder_garbage.find_trunks(stores.project, uses.days)
    yield from folder_garbage.find_features(stores.project, uses.days)
    yield from folder_garbage.find_packs(stores.project, uses.days)
    yield from folder_garbage.find_data(stores.project, uses)


def remove(garbage: Garbage, client: MlflowClient, stores: Stores, days: float) -> None:
    """Remove one thing, unless it is needed by now."""
    if garbage.kind == "version":
        ids = registry_garbage.delete_version(client, garbage, find_user_name(), days)
    elif garbage.kind == "run":
        ids = registry_garbage.trash_runs(client, garbage)
    elif garbage.kind == "trash":
        ids = garbage.ids
    elif garbage.kind == "trunk" and any(count_days(path) < days for path in garbage.paths):
        return  # a training has found it since
    else:
        folder_garbage.remove_paths(garbage)
        return
    try:
        find_kind(stores.tracking)
    except DatabaseError:  # a server: what was deleted stays in its trash
        return
    registry_garbage.purge(stores.tracking, ids)
