"""Opening of MLflow's store: the embedded SQLite database, or a server.

The embedded database is built in a temporary folder and then moved to its place, so a process
killed during MLflow's migrations leaves no incomplete database behind.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES

from oncoshift.errors import RegistryError
from oncoshift.files import hold_lock
from oncoshift.registry.client import check_database, check_server, make_patient_client
from oncoshift.registry.embedded import (
    SQLITE,
    check_absent,
    check_whole,
    find_artifact_folder,
    find_database,
    wait_until_writable,
)
from oncoshift.registry.relocation import check_location
from oncoshift.registry.waiting import retry_while_away, retry_while_transient
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.entities import Experiment

_KIND = {"mlflow.experimentKind": "custom_model_development"}  # else the UI guesses, and shows traces of GenAI


def has_store(uri: str) -> bool:
    """Tell whether there may be a store to read: an embedded store is created by its first writer.

    Raises:
        RegistryError: there was an embedded store, and it is gone.
    """
    database = find_database(uri)
    if database is None or database.is_file():
        return True
    check_absent(database)
    return False


def open_client(uri: str) -> MlflowClient:
    """Open a client for tracking and registry; check that the store is intact and this project's.

    A server that is away is waited for within `waiting.waiting_for` alone: a command says at once
    that there is none.

    Args:
        uri: `sqlite:///<path>`, or the address of an MLflow server or of its database.

    Raises:
        RegistryError: the database is damaged, names another project's artifacts, or is of another
            MLflow version or without a driver; or the server refuses, or is not an MLflow server.
        UnavailableError: no server answers, or the database stays locked.
    """
    database = find_database(uri)
    if database is not None:
        _create_database(uri, database)
        check_whole(database)
    elif uri.startswith(("http://", "https://")):
        retry_while_away(lambda: check_server(uri))
    elif uri.partition("://")[0].partition("+")[0] in DATABASE_ENGINES:
        retry_while_away(lambda: check_database(uri))
    try:
        client = make_patient_client(uri)
        client.search_experiments(max_results=1)
    except MlflowException as error:
        shown = remove_credentials(uri)
        raise RegistryError(
            f"{shown}: cannot open the MLflow store: {error}. If another version of MLflow made it, back it up and run "
            f"`mlflow db upgrade {shown}`"
        ) from error
    if database is not None:
        check_location(database)
    return client


def find_artifact_root(uri: str) -> str | None:
    """Find the URI of the folder in which an embedded store keeps artifacts; None for a server."""
    database = find_database(uri)
    return None if database is None else find_artifact_folder(database).as_uri()


def ensure_experiment(client: MlflowClient, name: str, location: str | None) -> Experiment:
    """Find an experiment by name, or create it; two processes at once get the same one.

    Raises:
        RegistryError: an experiment of that name is in MLflow's trash.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            client.create_experiment(name, artifact_location=location, tags=_KIND)
        except MlflowException:
            if client.get_experiment_by_name(name) is None:
                raise
        experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        trash = client.search_experiments(view_type=ViewType.DELETED_ONLY, filter_string=f"name = '{name}'")
        found = f" (id {trash[0].experiment_id})" if trash else ""
        raise RegistryError(f"experiment {name!r}{found} is deleted; restore it in MLflow, or set tracking.experiment")
    return experiment


@contextmanager
def hold_store(uri: str) -> Iterator[None]:
    """Hold an embedded store's lock, so that finding an entry, or else creating it, is one step.

    It keeps threads and processes apart. The lock is the operating system's, so a killed process
    holds it no longer. A server has no such lock: there, two processes that do the same job at once
    may make an entry twice. Aliases have a lock there, too: see `lock.changing_aliases`.

    Raises:
        RegistryError: the database's folder cannot be written to.
        UnavailableError: another process keeps the lock, or keeps writing to the database.
    """
    database = find_database(uri)
    if database is None:
        yield
        return
    lock = database.with_name(f".{database.name}.lock")

    def busy(error: Exception) -> str | None:
        return f"{database}: another process holds {lock}" if isinstance(error, BlockingIOError) else None

    with ExitStack() as stack:
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
            retry_while_transient(lambda: stack.enter_context(hold_lock(lock, BlockingIOError)), busy)
        except OSError as error:
            raise RegistryError(f"{lock}: cannot be written ({error.strerror}); allow it") from error
        if database.exists():
            wait_until_writable(database)
        yield


def _create_database(uri: str, path: Path) -> None:
    if path.exists():
        return
    with hold_store(uri), TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        if path.exists():
            return
        check_absent(path)
        built = Path(folder) / path.name
        MlflowClient(tracking_uri=f"{SQLITE}{built}", registry_uri=f"{SQLITE}{built}").search_experiments(max_results=1)
        with built.open("rb") as written:
            os.fsync(written.fileno())
        built.replace(path)
