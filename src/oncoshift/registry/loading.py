"""Loading a registered model, or a model folder, to ask it; nothing in it is unpickled.

A model brings its own code and runs it, as every MLflow model may: load only from a place that you trust. A pickle is
code as well, but nobody can read it, and a model that `oncoshift.registry.folder` wrote holds none; so one with a
pickle is broken or was tampered with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

import mlflow.pyfunc
import mlflow.pyfunc.model
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.store.artifact.utils.models import get_model_name_and_version

from oncoshift.errors import OncoshiftError, RegistryError
from oncoshift.registry.digests import SUMS, SUMS_TAG, check_sums
from oncoshift.registry.embedded import SQLITE
from oncoshift.registry.store import open_client

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

_LOADER = "mlflow.pyfunc.loaders.code_model"
"""MLflow's loader of models-from-code, in MLmodel."""

_IN_STORE = frozenset({"models", "runs", "mlflow-artifacts"})


def is_in_store(uri: str) -> bool:
    """Whether the tracking store must be asked where the model is; if not, `uri` is a path or an address by itself."""
    return urlparse(uri).scheme in _IN_STORE


def load_served(uri: str, tracking_uri: str | None = None) -> PyFuncModel:
    """Load a model that `oncoshift.registry.folder.save_folder` wrote, and forbid this process to unpickle any other.

    Args:
        uri: a folder, or an address that MLflow knows, such as `models:/<name>@<alias>` or `models:/<name>/<version>`.
        tracking_uri: the store, for a model that is in one; it is never made here.

    Raises:
        RegistryError: there is no such model, its files are elsewhere or damaged, it needs a pickle, or its own code
            fails.
    """
    folder = _fetch(uri, tracking_uri)
    if is_in_store(uri):
        check_sums(folder, *_noted(uri, tracking_uri))
    elif (folder / SUMS).is_file():
        check_sums(folder, uri, None)
    # MLflow's own guard: for what the model's code may load by MLflow in its turn, and for processes started from here.
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION.set(False)  # type: ignore[no-untyped-call]
    try:
        _check_form(uri, folder)
        model: PyFuncModel = mlflow.pyfunc.load_model(str(folder))
        return model
    except RegistryError:
        raise
    except Exception as error:  # the model's own code runs here, and may raise anything
        raise RegistryError(f"{uri}: the model cannot be loaded: {_first_line(error)}") from error


def _fetch(uri: str, tracking_uri: str | None) -> Path:
    """The model's folder on this machine; downloaded only where it is not here."""
    try:
        location = _location(uri, tracking_uri) if is_in_store(uri) else uri
        parsed = urlparse(location)
        if parsed.scheme not in ("", "file"):
            return Path(download_artifacts(artifact_uri=location, tracking_uri=tracking_uri, registry_uri=tracking_uri))
    except OncoshiftError:
        raise
    except Exception as error:  # every kind of storage has errors of its own
        raise RegistryError(f"{uri}: {_first_line(error)}; `oncoshift models` lists what there is") from error
    folder = Path(unquote(parsed.path) if parsed.scheme else location)
    if not folder.is_dir():
        recorded = f"{uri}: its files are recorded to be at {folder}" if is_in_store(uri) else str(folder)
        raise RegistryError(f"{recorded}: no such folder")
    return folder


def _location(uri: str, tracking_uri: str | None) -> str:
    """Where a store says that the model is; MLflow itself would ask the process's global store."""
    if tracking_uri is None:
        raise RegistryError(f"{uri}: give the tracking store that knows it")
    if tracking_uri.startswith(SQLITE) and not Path(tracking_uri.removeprefix(SQLITE)).is_file():
        raise RegistryError(f"{uri}: there is no store {tracking_uri}, so there are no registered models")
    client = open_client(tracking_uri)
    if urlparse(uri).scheme != "models":
        return uri
    found = get_model_name_and_version(client, uri)  # type: ignore[no-untyped-call]
    if len(found) == 1:
        return client.get_logged_model(found[0]).artifact_location
    return client.get_model_version_download_uri(*found)


def _noted(uri: str, tracking_uri: str | None) -> tuple[str, str | None]:
    """What to call a model that is in a store, and the tag with the digest of its list of digests, if it has one."""
    if urlparse(uri).scheme != "models":
        return uri, None
    client = MlflowClient(tracking_uri, tracking_uri)
    found = get_model_name_and_version(client, uri)  # type: ignore[no-untyped-call]
    if len(found) == 1:
        return uri, client.get_logged_model(found[0]).tags.get(SUMS_TAG)
    name, version = found
    return f"{name} version {version}", client.get_model_version(name, version).tags.get(SUMS_TAG)


def _check_form(uri: str, folder: Path) -> None:
    """Refuse a model whose MLmodel names any loader but that of models-from-code: most others unpickle something."""
    flavour = Model.load(folder).flavors.get(mlflow.pyfunc.FLAVOR_NAME, {})
    if flavour.get(mlflow.pyfunc.MAIN) != _LOADER or mlflow.pyfunc.model.MODEL_CODE_PATH not in flavour:
        raise RegistryError(
            f"{uri}: no model of oncoshift: its MLmodel asks for a pickle or a loader of another library, and a pickle "
            "runs whatever its author wants; nothing of it was loaded"
        )


def _first_line(error: Exception) -> str:
    message = error.message if isinstance(error, MlflowException) else str(error)
    return message.strip().partition("\n")[0] or type(error).__name__
