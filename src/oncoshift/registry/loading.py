"""Loading of a registered model or a model folder for prediction; nothing in it is unpickled.

A model runs code of its own, as every MLflow model may: load only from a place that you trust. A
pickle is code as well, but unreadable, and a model that `oncoshift.registry.folder` wrote contains
none; so a model with a pickle is broken or was tampered with.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlparse

import mlflow.pyfunc
import mlflow.pyfunc.model
from mlflow.artifacts import download_artifacts
from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.store.artifact.utils.models import get_model_name_and_version

from oncoshift.errors import OncoshiftError, RegistryError
from oncoshift.registry.client import explain_lost_store, shorten_error
from oncoshift.registry.digests import SUMS, SUMS_TAG, check_sums, digest_folder
from oncoshift.registry.embedded import SQLITE
from oncoshift.registry.fetching import fetch_version
from oncoshift.registry.store import open_client
from oncoshift.registry.waiting import retry_while_transient
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.pyfunc import PyFuncModel

_LOADER = "mlflow.pyfunc.loaders.code_model"
"""MLflow's loader of models-from-code, in MLmodel."""

_OF_CHAMPION = re.compile(r"models:/oncoshift-(.+)@champion")
"""URI of a target's champion."""

_ABSENT = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""MLflow's codes for a model, and for an alias, that is not there."""

_IN_STORE = frozenset({"models", "runs", "mlflow-artifacts"})


class ModelIdentity(NamedTuple):
    """What tells one model from all others.

    Attributes:
        name: of the registered model, or the location of a model in a folder.
        version: its number; None for a model that is not addressed as a version.
        digest: SHA-256 of the list of its files' digests.
    """

    name: str
    version: str | None
    digest: str


class _StoredModel(NamedTuple):
    """A model as its store records it.

    Attributes:
        location: location of its files.
        name: its name, or its location.
        sums_digest: digest of its list of digests, if it was registered with one.
        version: its number, if it was found as a version.
    """

    location: str
    name: str
    sums_digest: str | None
    version: str | None = None

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return self.name if self.version is None else f"{self.name} version {self.version}"


def is_in_store(uri: str) -> bool:
    """Tell whether a model's location is known to the tracking store, not given by `uri` itself."""
    return urlparse(uri).scheme in _IN_STORE


def load_served(uri: str, tracking_uri: str | None = None) -> PyFuncModel:
    """Load a model that `registry.folder` wrote, and forbid this process to unpickle others.

    Args:
        uri: a folder, or an MLflow URI such as `models:/<name>@<alias>` or
            `models:/<name>/<version>`.
        tracking_uri: URI of the store, for a model in a store; it must exist.

    Raises:
        RegistryError: there is no such model, its files are missing or damaged, it needs a pickle,
            or its own code fails.
        UnavailableError: the store does not answer, or stays locked.
    """
    return load_identified(uri, tracking_uri)[0]


def load_identified(uri: str, tracking_uri: str | None = None, threads: int = 0) -> tuple[PyFuncModel, ModelIdentity]:
    """Load a model and say which one it is.

    Args:
        uri: see `load_served`.
        tracking_uri: see `load_served`.
        threads: for one call of `predict` on the CPU, which a model from before there was this
            choice ignores; 0: one a core.

    Raises:
        RegistryError: see `load_served`.
        UnavailableError: see `load_served`.
    """
    found, folder = _find(uri, tracking_uri)
    # MLflow's own guard covers what the model's code loads through MLflow, and child processes.
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION.set(False)  # type: ignore[no-untyped-call]
    try:
        known = _check_loader(uri, folder).get("config") or {}
        config = {"threads": threads} if "threads" in known else None
        model: PyFuncModel = mlflow.pyfunc.load_model(str(folder), model_config=config)
        return model, ModelIdentity(found.name, found.version, digest_folder(folder))
    except RegistryError:
        raise
    except Exception as error:  # the model's own code runs here, and may raise anything
        raise RegistryError(f"{uri}: the model cannot be loaded: {shorten_error(error)}") from error


def find_folder(uri: str, tracking_uri: str | None = None) -> Path:
    """Find a model's folder on this machine, or download it; its files are checked.

    Args:
        uri: see `load_served`.
        tracking_uri: see `load_served`.

    Raises:
        RegistryError: there is no such model, or its files are missing or damaged.
        UnavailableError: the store does not answer, or stays locked.
    """
    return _find(uri, tracking_uri)[1]


def find_identified(uri: str, tracking_uri: str | None = None) -> tuple[Path, ModelIdentity]:
    """Find a model's folder and say which it is, without running its code; see `find_folder`."""
    found, folder = _find(uri, tracking_uri)
    return folder, ModelIdentity(found.name, found.version, digest_folder(folder))


def _find(uri: str, tracking_uri: str | None) -> tuple[_StoredModel, Path]:
    found = _find_in_store(uri, tracking_uri) if is_in_store(uri) else _StoredModel(uri, uri, None)
    folder = _fetch(uri, found, tracking_uri)
    if is_in_store(uri):
        check_sums(folder, found.title, found.sums_digest)
    elif (folder / SUMS).is_file():
        check_sums(folder, uri, None)
    return found, folder


def _fetch(uri: str, found: _StoredModel, tracking_uri: str | None) -> Path:
    parsed, store = urlparse(found.location), remove_credentials(tracking_uri or "")

    def explain_transient(error: Exception) -> str | None:
        return explain_lost_store(store, error)

    if parsed.scheme not in ("", "file"):

        def download() -> Path:
            place = download_artifacts(
                artifact_uri=found.location, tracking_uri=tracking_uri, registry_uri=tracking_uri
            )
            return Path(place)

        with _naming_errors(uri):
            return retry_while_transient(download, explain_transient)
    folder = Path(unquote(parsed.path) if parsed.scheme else found.location)
    if os.access(folder, os.R_OK) and folder.is_dir() and (not is_in_store(uri) or any(folder.iterdir())):
        return folder
    if found.version is not None and tracking_uri is not None and tracking_uri.startswith(("http://", "https://")):
        copy = Path(mkdtemp(prefix="oncoshift-model-"))
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        name, version = found.name, found.version
        retry_while_transient(
            lambda: fetch_version(tracking_uri, name, version, found.sums_digest, copy), explain_transient
        )
        return copy
    recorded = f"{uri}: its files are recorded to be at {folder}" if is_in_store(uri) else str(folder)
    raise RegistryError(f"{recorded}: no such folder")


def _find_in_store(uri: str, tracking_uri: str | None) -> _StoredModel:
    """Look a model up in a store; MLflow itself would use the process's global store."""
    if tracking_uri is None:
        raise RegistryError(f"{uri}: give the tracking store that knows it")
    if tracking_uri.startswith(SQLITE) and not Path(tracking_uri.removeprefix(SQLITE)).is_file():
        raise RegistryError(
            f"{uri}: there is no store {tracking_uri}, so there are no registered models; run `oncoshift retrain`"
        )
    client = open_client(tracking_uri)
    if urlparse(uri).scheme != "models":
        return _StoredModel(uri, uri, None)
    with _naming_errors(uri):
        try:
            named = get_model_name_and_version(client, uri)  # type: ignore[no-untyped-call]
        except MlflowException as error:
            target = _OF_CHAMPION.fullmatch(uri)
            if target is None or error.error_code not in _ABSENT:
                raise
            raise RegistryError(
                f"{uri}: no champion yet for target {target[1]}; run `oncoshift retrain`, whose model becomes champion "
                "if it passes the gate; `oncoshift models` lists what there is"
            ) from None
        if len(named) == 1:
            model = client.get_logged_model(named[0])
            return _StoredModel(model.artifact_location, uri, model.tags.get(SUMS_TAG))
        name, version = named
        tags = client.get_model_version(name, version).tags
        location = client.get_model_version_download_uri(name, version)
        return _StoredModel(location, name, tags.get(SUMS_TAG), str(version))


@contextmanager
def _naming_errors(uri: str) -> Iterator[None]:
    """Turn the errors of any kind of storage into a `RegistryError` that names the model."""
    try:
        yield
    except OncoshiftError:
        raise
    except Exception as error:
        raise RegistryError(f"{uri}: {shorten_error(error)}; `oncoshift models` lists what there is") from error


def _check_loader(uri: str, folder: Path) -> dict[str, Any]:
    """Refuse a model whose loader is not that of models-from-code: most others use pickle.

    Returns:
        The model's entry for MLflow's pyfunc.
    """
    flavour: dict[str, Any] = Model.load(folder).flavors.get(mlflow.pyfunc.FLAVOR_NAME, {})
    if flavour.get(mlflow.pyfunc.MAIN) != _LOADER or mlflow.pyfunc.model.MODEL_CODE_PATH not in flavour:
        raise RegistryError(
            f"{uri}: not an oncoshift model: its MLmodel asks for a pickle or a loader of another library, and a "
            "pickle runs whatever its author wants; nothing of it was loaded"
        )
    return flavour
