"""An MLflow client that waits for a locked or unreachable store and reports errors in one line."""

from __future__ import annotations

import logging
import os
import re
from functools import wraps
from http import HTTPStatus
from inspect import ismethod
from typing import TYPE_CHECKING, Any, TypeVar, cast

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from oncoshift.errors import RegistryError, UnavailableError
from oncoshift.proxies import spare_loopback
from oncoshift.registry.embedded import SQLITE
from oncoshift.registry.waiting import WAIT_SECONDS, explain_unavailable, retry_while_transient
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PROBE_SECONDS = 10
_DEFAULTS = {
    # MLflow's own retries are silent and ignore signals, so this module retries around its calls.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # A server that keeps artifacts in S3 would send its clients there, where most have no way.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
"""Environment of MLflow's client, where the user sets none."""

_ONCE = frozenset({"create_logged_model", "create_model_version", "create_run", "log_outputs"})
"""Calls that make a second entry if they are repeated because the first one's answer was lost.

They are tried once; `find_or_make` repeats them.
"""

_RESTARTING = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
"""Answers of a proxy whose server is away."""

# MLflow copies files in threads, and of their errors it keeps the text alone.
_LOST_IN_THREAD = re.compile(
    r"failures occurred while (?:down|up)loading .*(?:ConnectionError|Max retries|timed out)", re.DOTALL
)

T = TypeVar("T")


def make_patient_client(uri: str) -> MlflowClient:
    """Make an MLflow client for tracking and registry that retries calls on transient errors.

    A call raises MLflow's exception for an answer of the store, such as an unknown model;
    `UnavailableError` where the store stays unreachable or locked; and `RegistryError` for other
    errors of its database.
    """
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # logs tracebacks of errors raised here
    return cast("MlflowClient", _PatientClient(uri))


class _PatientClient:
    """A proxy of `MlflowClient`; in a subclass, methods that call each other would each wait."""

    def __init__(self, uri: str) -> None:
        self._uri = remove_credentials(uri)
        self._client = _QuickClient(tracking_uri=uri, registry_uri=uri)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not ismethod(attribute):
            return attribute

        @wraps(attribute)
        def call(*arguments: Any, **options: Any) -> Any:
            seconds = 0 if name in _ONCE else WAIT_SECONDS
            try:
                return retry_while_transient(
                    lambda: attribute(*arguments, **options),
                    lambda error: explain_lost_store(self._uri, error),
                    seconds,
                )
            except MlflowException as error:
                if fault := _find_database_fault(error):
                    remedy = "; make room, and start it again" if "disk is full" in fault else ""
                    raise RegistryError(f"{self._uri}: {fault}{remedy}") from error
                raise

        return call


class _QuickClient(MlflowClient):
    """MLflow's client; it asks once, and not before each write, whether a name is of a prompt.

    MLflow reads all versions of a model for this answer: of a thousand, 20 ms for each tag.
    """

    def __init__(self, tracking_uri: str, registry_uri: str) -> None:
        super().__init__(tracking_uri, registry_uri)
        self._models: set[str] = set()

    def _raise_if_prompt(self, name: str) -> None:
        if name not in self._models:
            super()._raise_if_prompt(name)
            self._models.add(name)


def explain_lost_store(uri: str, error: Exception) -> str | None:
    """Describe an error of a store that is away or locked; None for others.

    Args:
        uri: the store, without credentials.
        error: raised by MLflow.
    """
    for link in _iterate_causes(error):
        if isinstance(link, requests.ConnectionError | requests.Timeout | requests.exceptions.RetryError):
            return f"{uri}: the MLflow server does not answer ({_explain_lost_connection(error)})"
        if isinstance(link, OperationalError | InterfaceError):
            if "locked" in str(link.orig):
                return f"{uri}: another process is writing to it"
            return None if uri.startswith(SQLITE) else f"{uri}: {shorten_error(link)}"
    if _LOST_IN_THREAD.search(str(error)):
        return f"{uri}: the MLflow server does not answer (the connection broke)"
    return None


def find_or_make(find: Callable[[], T | None], make: Callable[[], T]) -> T:
    """Find an entry of a store, or make it, so that it is made once though an answer may be lost.

    Args:
        find: returns the entry, or None.
        make: calls one of `_ONCE`.

    Raises:
        UnavailableError: the store does not come back in time.
    """

    def attempt() -> T:
        found = find()
        return make() if found is None else found

    return retry_while_transient(attempt, explain_unavailable)


def check_server(uri: str) -> None:
    """Check within seconds that an MLflow server accepts requests, and set its client's defaults.

    Raises:
        UnavailableError: nothing answers, or a proxy whose server is away.
        RegistryError: it refuses, answers with an error, or is not an MLflow server.
    """
    spare_loopback()
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    shown = remove_credentials(uri)
    try:
        answer = _probe_again(uri)
    except MlflowException as error:
        raise UnavailableError(
            f"{shown}: no MLflow server answers ({_explain_lost_connection(error)}); start it, or see tracking.uri and "
            "MLFLOW_TRACKING_URI"
        ) from error
    if fault := _explain_refusal(answer):
        kind = UnavailableError if answer.status_code in _RESTARTING else RegistryError
        raise kind(f"{shown}: {fault}")


def _probe_again(uri: str) -> requests.Response:
    """Ask, and ask again if the server closed an idle connection just when it was to be used."""
    try:
        return _probe(uri)
    except MlflowException as error:
        if not any(isinstance(link, ConnectionResetError) for link in _iterate_causes(error)):
            raise
    return _probe(uri)


def _probe(uri: str) -> requests.Response:
    answer: requests.Response = http_request(
        get_default_host_creds(uri),  # type: ignore[no-untyped-call]
        "/api/2.0/mlflow/experiments/search",
        "POST",
        json={"max_results": 1},
        timeout=_PROBE_SECONDS,
        max_retries=0,
        raise_on_status=False,
    )
    return answer


def check_database(uri: str) -> None:
    """Check that a database server accepts a connection; MLflow itself tries for 100 seconds.

    Args:
        uri: SQLAlchemy URL of the database.

    Raises:
        UnavailableError: it cannot be reached, or refuses.
        RegistryError: the URL is invalid, or the database's driver is not installed.
    """
    shown = remove_credentials(uri)
    try:
        create_engine(uri, poolclass=NullPool).connect().close()
    except OperationalError as error:
        raise UnavailableError(
            f"{shown}: the database does not answer ({shorten_error(error)}); start it, or see tracking.uri and "
            "MLFLOW_TRACKING_URI"
        ) from error
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise RegistryError(f"{shown}: {shorten_error(error)}; see tracking.uri, or install the driver") from error


def _explain_refusal(answer: requests.Response) -> str | None:
    code = answer.status_code
    said = f"answers {code} {answer.reason}".rstrip()
    if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return (
            f"{said}; see MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and the server's own --allowed-hosts"
        )
    if code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"{said}; its log says why"
    try:
        is_mlflow = isinstance(answer.json(), dict)
    except requests.JSONDecodeError:
        is_mlflow = False
    return None if code == HTTPStatus.OK and is_mlflow else f"{said}, so it is not an MLflow server; see tracking.uri"


def _find_database_fault(error: MlflowException) -> str | None:
    if error.error_code == "RESOURCE_ALREADY_EXISTS":  # caused by the database, but an answer and no fault
        return None
    return next((shorten_error(link) for link in _iterate_causes(error) if isinstance(link, SQLAlchemyError)), None)


def shorten_error(error: Exception) -> str:
    """Shorten an error to its first line: the message of MLflow or the database, else its type."""
    message = error.message if isinstance(error, MlflowException) else getattr(error, "orig", None) or error
    return str(message).strip().partition("\n")[0] or type(error).__name__


def _explain_lost_connection(error: Exception) -> str:
    """Explain a lost connection by the system's message or the server's answer."""
    words = [link.strerror for link in _iterate_causes(error) if isinstance(link, OSError) and link.strerror]
    if words:
        return words[-1]
    if any(isinstance(link, requests.Timeout) for link in _iterate_causes(error)):
        return "no answer in time"
    answered = re.search(r"too many (\d+) error responses", str(error))
    return f"error {answered[1]}" if answered else "the connection broke"


def _iterate_causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
