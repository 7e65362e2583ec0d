"""A locked or absent store is waited for, then named, and never keeps a process from ending."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from mlflow.exceptions import MlflowException

from oncoshift.errors import RegistryError, TrainingInterrupted, UnavailableError
from oncoshift.registry import waiting
from oncoshift.registry.embedded import SQLITE
from oncoshift.registry.store import hold_store, open_client
from oncoshift.registry.waiting import patience, retry_while_transient, waiting_for
from oncoshift.training.interruption import interruptible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oncoshift.registry.tracking import Tracker


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Waiting times cut to one second, and quick attempts to a tenth."""
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "0")  # so that pytest restores what the code sets
        monkeypatch.delenv(name)
    for module in ("waiting", "embedded"):
        monkeypatch.setattr(f"oncoshift.registry.{module}.TRY_SECONDS", 0.1)
    monkeypatch.setattr(waiting, "_PAUSE_SECONDS", 0.05)
    token = patience.set(1.0)
    yield
    patience.reset(token)


@contextmanager
def locked(uri: str, kind: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(uri.removeprefix(SQLITE), check_same_thread=False)) as connection:
        connection.execute(f"BEGIN {kind}")
        yield connection


@contextmanager
def server(status: int, body: bytes, dropped: int = 0) -> Iterator[str]:
    """Serve the same answer to every request, but drop the first few connections."""
    left = dropped

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal left
            self.rfile.read(int(self.headers["Content-Length"]))
            if left:
                left -= 1
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_locked_database_is_waited_for_with_a_line_and_then_read(
    tracker: Tracker, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    patience.set(30.0)
    with locked(uri, "EXCLUSIVE") as other:
        release = threading.Timer(0.6, other.rollback)
        release.start()
        open_client(uri)
        release.join()
    assert caplog.text.count("mlflow.db: another process is writing to it; waiting for up to 30 s") == 1


def test_a_database_that_stays_locked_is_named(tracker: Tracker, uri: str) -> None:
    with locked(uri, "EXCLUSIVE"), pytest.raises(UnavailableError, match=r"mlflow\.db: another process is writing"):
        open_client(uri)


def test_a_database_that_another_process_writes_to_can_be_read_and_the_lock_waits(tracker: Tracker, uri: str) -> None:
    with locked(uri, "IMMEDIATE"):
        open_client(uri).search_registered_models()
        with pytest.raises(UnavailableError, match="another process is writing to it; waited for 1 s"), hold_store(uri):
            pytest.fail("it is locked")


def test_a_lock_that_another_holds_is_named(tracker: Tracker, uri: str) -> None:
    with hold_store(uri), pytest.raises(UnavailableError, match=r"holds .*\.mlflow\.db\.lock"), hold_store(uri):
        pytest.fail("it is held")


def test_a_server_that_is_not_there_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:3128")  # nothing answers there
    with pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:1: no MLflow server answers \(Connection refused"):
        open_client("http://anna:secret@127.0.0.1:1")


def test_a_server_that_drops_an_idle_connection_is_asked_again() -> None:
    with server(200, b"{}", dropped=1) as uri:
        open_client(uri)
    with (
        server(200, b"{}", dropped=999) as uri,
        pytest.raises(UnavailableError, match=r"no MLflow server answers \(the connection broke"),
    ):
        open_client(uri)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"{}", "answers 401 Unauthorized; see MLFLOW_TRACKING_USERNAME"),
        (403, b"{}", "answers 403 Forbidden; see"),
        (500, b"{}", "answers 500 Internal Server Error; its log"),
        (404, b"nothing here", "answers 404 Not Found, so it is not an MLflow server"),
        (200, b"<html>welcome</html>", "answers 200 OK, so it is not an MLflow server"),
    ],
)
def test_a_server_that_refuses_or_is_another_is_named(status: int, body: bytes, words: str) -> None:
    with server(status, body) as address, pytest.raises(RegistryError, match=f"{address}: {words}"):
        open_client(address)


def test_a_server_that_goes_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with server(200, b"{}") as address:
        client = open_client(address)
        assert client.search_experiments() == []
    with pytest.raises(UnavailableError, match=r"does not answer \(Connection refused\); waited for 1 s"):
        client.search_experiments()
    assert caplog.text.count("does not answer (Connection refused); waiting for up to 1 s") == 1


def test_what_the_user_has_set_for_mlflow_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    with server(200, b"{}") as address:
        open_client(address)
    assert (os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) == ("7", "0")


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def passing(error: Exception) -> str | None:
    return "it is away" if isinstance(error, ConnectionError) else None


def test_sigterm_in_a_training_ends_a_wait_though_the_library_makes_an_error_of_its_own_of_it() -> None:
    def call() -> None:
        try:
            ask_to_stop()
        except Exception as error:
            raise MlflowException(f"API request failed with exception {error}") from None

    with interruptible() as asked:
        with pytest.raises(TrainingInterrupted):
            retry_while_transient(call, passing)
        assert asked()


def test_a_stop_is_not_its_own_cause() -> None:
    with interruptible(), pytest.raises(TrainingInterrupted) as raised:
        retry_while_transient(ask_to_stop, passing)
    assert raised.value.__cause__ is None


def test_after_sigterm_in_a_training_nothing_is_asked_of_the_store() -> None:
    with interruptible():
        ask_to_stop()
        with pytest.raises(TrainingInterrupted):
            retry_while_transient(lambda: pytest.fail("the store was asked"), passing)
    assert retry_while_transient(lambda: 1, passing) == 1


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_run_is_abandoned_without_a_wait(
    tracker: Tracker, uri: str, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    run = tracker.find_or_start_run(unique("abandoned"), "x")
    patience.set(600.0)
    with locked(uri, kind):
        tracker.abandon(run, "KILLED", {})
    assert f"run {run} stays RUNNING in MLflow until the next start" in caplog.text
    tracker.abandon(run, "FAILED", {"why": "no reason"})
    ended = tracker.client.get_run(run)
    assert (ended.info.status, ended.data.tags["why"]) == ("FAILED", "no reason")
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_server_that_comes_back_is_waited_for_once_a_retraining_has_begun(caplog: pytest.LogCaptureFixture) -> None:
    with server(503, b"") as address:
        with pytest.raises(UnavailableError, match="answers 503 Service Unavailable"):
            open_client(address)
        with waiting_for(0.5), pytest.raises(UnavailableError, match=r"503 .* waited for [01] s"):
            open_client(address)
    assert caplog.text.count("waiting for up to 0 s") == 1
