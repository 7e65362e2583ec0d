"""A model's files from an MLflow server that keeps them on its own disk.

Such a server records the full path of a file on its machine, where another machine finds nothing,
but it serves the files of a version to the UI. The list of digests says which there are.
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path, PurePosixPath

import requests
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from oncoshift.errors import RegistryError
from oncoshift.registry.digests import SUMS, check_sums, read_sums
from oncoshift.secrets import remove_credentials

_ENDPOINT = "/model-versions/get-artifact"
_CHUNK = 2**20


def fetch_version(uri: str, name: str, version: str, sums_digest: str | None, folder: Path) -> None:
    """Download all files of a version and compare them with their digests.

    Args:
        uri: the server.
        name: of the registered model.
        version: its number.
        sums_digest: its tag `SUMS_TAG`.
        folder: is there, and empty.

    Raises:
        RegistryError: the version has no digests, the server does not give a file, or a file is not
            the one that was registered.
    """
    title = f"{name} version {version}"
    if sums_digest is None:
        raise RegistryError(
            f"{title}: {remove_credentials(uri)} keeps its files on its own disk, and it was registered without "
            "digests, so nobody knows which there are; copy them by hand, or retrain"
        )
    _download(uri, name, version, SUMS, folder)
    for file in read_sums(folder):
        if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
            raise RegistryError(
                f"{title}: {SUMS} names {file!r}, which is not below the model's folder; nothing is used"
            )
        _download(uri, name, version, file, folder)
    check_sums(folder, title, sums_digest)


def _download(uri: str, name: str, version: str, file: str, folder: Path) -> None:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    where = f"{name} version {version}: {remove_credentials(uri)}: {file}"
    try:
        answer = http_request(
            get_default_host_creds(uri),  # type: ignore[no-untyped-call]
            _ENDPOINT,
            "GET",
            params={"name": name, "version": version, "path": file},
            stream=True,
            raise_on_status=False,
        )
        with answer, path.open("wb") as out:
            if answer.status_code != HTTPStatus.OK:
                raise RegistryError(f"{where}: the server answers {answer.status_code} {answer.reason}; see its log")
            for chunk in answer.iter_content(_CHUNK):
                out.write(chunk)
    except (MlflowException, requests.RequestException) as error:
        raise RegistryError(f"{where}: {' '.join(str(error).split())}") from error
