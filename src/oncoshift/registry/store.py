"""Opening MLflow's store: the embedded SQLite database, or a server.

The embedded database is built beside its place and moved there whole, so a process killed in the middle of MLflow's
migrations leaves no half-built database behind.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from oncoshift.errors import RegistryError

if TYPE_CHECKING:
    from mlflow.entities import Experiment

SQLITE = "sqlite:///"
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # else the UI guesses, and shows runs as GenAI traces


def open_client(uri: str) -> MlflowClient:
    """A client for tracking and registry, after making sure that the store is there.

    Args:
        uri: `sqlite:///<path>`, or the address of an MLflow server.

    Raises:
        RegistryError: the store cannot be opened, or another MLflow version made its tables.
    """
    if uri.startswith(SQLITE):
        _create_database(uri)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    try:
        client.search_experiments(max_results=1)
    except MlflowException as error:
        raise RegistryError(
            f"{uri}: cannot open the MLflow store: {error}. If another version of MLflow made it, back it up and run "
            f"`mlflow db upgrade {uri}`"
        ) from error
    return client


def artifact_root(uri: str) -> str | None:
    """Where the embedded store keeps artifacts: the folder `artifacts` beside the database; None for a server."""
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).resolve().parent / "artifacts").as_uri()


def ensure_experiment(client: MlflowClient, name: str, location: str | None) -> Experiment:
    """The experiment of that name, made where absent; two processes asking at once get the same one.

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


def store_lock(uri: str) -> AbstractContextManager[object]:
    """Keeps the threads and processes that share an embedded store apart, to find a thing and else make it in one step.

    The lock is the operating system's, so a killed process holds it no longer. A server has none: there, two processes
    should not do the same job at once.
    """
    if not uri.startswith(SQLITE):
        return nullcontext()
    database = Path(uri.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(database.with_name(f".{database.name}.lock"))


def _create_database(uri: str) -> None:
    path = Path(uri.removeprefix(SQLITE))
    if path.exists():
        return
    with store_lock(uri), TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        if path.exists():
            return
        built = Path(folder) / path.name
        MlflowClient(tracking_uri=f"{SQLITE}{built}", registry_uri=f"{SQLITE}{built}").search_experiments(max_results=1)
        with built.open("rb") as written:
            os.fsync(written.fileno())
        built.replace(path)
