"""The project's own Prefect server, which runs for the duration of a block.

    python -m flows.server PORT [--ui] [--lasting]      (not for users)

Prefect's temporary server and `prefect server start` end at the first SIGTERM, which a scheduler
sends to all processes at once; the flow then waits minutes for a server that is gone. They also
accept requests from any web page open in a browser on this machine. This server ends with its
parent and never earlier, and answers only requests that are addressed to it and come from its own
pages. `--lasting` is for `flows.up`: it has no parent, and ends at SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import httpx
from prefect import get_client
from prefect.logging.handlers import APILogHandler
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)

from flows.runs import OWN_SERVER
from oncoshift.errors import OncoshiftError, SettingsError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    import uvicorn

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOST = "127.0.0.1"
_FLOWS = Path(__file__).resolve().parent.parent
"""Where `python -m flows.server` finds its module."""
_STARTUP_SECONDS = 180
_STOP_SECONDS = 10
_ANSWER_SECONDS = 5
HOW_TO_START = "start one by `prefect server start`, or by `make up`, which also runs the schedules itself"
"""How a user gets a server that lasts."""
_TELL_ADDRESS = "prefect.flow_runs", "prefect.engine"
"""Loggers that tell the address of a run's page."""
_TAIL = 2000
"""Characters of the server's log that an error shows."""


class ServerError(OncoshiftError):
    """The project's own Prefect server cannot start."""


@contextmanager
def ensure_server(port: int | None = None, *, ui: bool = False) -> Iterator[bool]:
    """Provide a Prefect server: the one at PREFECT_API_URL, or the project's own for this block.

    Args:
        port: of the project's own server; None for any free port.
        ui: whether the project's own server serves Prefect's UI and runs schedules.

    Yields:
        Whether the server is the project's own, so that all its runs are of this machine.

    Raises:
        ServerError: the port is taken, or the project's own server does not start.
        SettingsError: the configured address is not that of Prefect's API.
        UnavailableError: the configured server does not answer.
    """
    configured = get_current_settings().api.url
    if configured is not None:
        check_server_answers(configured)
        yield OWN_SERVER in os.environ
        return
    port = find_free_port(port)
    os.environ[OWN_SERVER] = "1"
    loggers = [] if ui else [logging.getLogger(name) for name in _TELL_ADDRESS]
    for logger in loggers:
        logger.addFilter(_drop_address)
    try:
        with _run_own_server(port, ui=ui), temporary_settings({PREFECT_API_URL: f"{build_address(port)}/api"}):
            yield True
            APILogHandler().flush()  # otherwise the last lines would be sent after the server has ended
    finally:
        for logger in loggers:
            logger.removeFilter(_drop_address)
        del os.environ[OWN_SERVER]


def _drop_address(record: logging.LogRecord) -> bool:
    """Drop the address of a run's page: this server has no pages, and ends with the run."""
    return not str(record.msg).startswith("View at ")


def build_address(port: int) -> str:
    """Build the address of the project's own server."""
    return f"http://{_HOST}:{port}"


def build_environment(port: int) -> dict[str, str]:
    """Build the environment variables of the project's own server."""
    return {
        "PREFECT_SERVER_API_HOST": _HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_URL": build_address(port),
        "PREFECT_UI_API_URL": f"{build_address(port)}/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{build_address(port)},http://localhost:{port}",
        # A run ends itself if the server has lost its lease, as it would at a restart.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }


def check_server_answers(url: str, *, lasting: bool = False) -> None:
    """Ask the configured Prefect API for its health; pages, which are HTML, are no answer.

    Args:
        url: its address, for the errors.
        lasting: whether one of the project's own, which ends with its block, is of no use.

    Raises:
        SettingsError: something else answers there, such as Prefect's pages.
        UnavailableError: it does not answer within seconds, or answers with an error.
    """
    briefly = {PREFECT_API_REQUEST_TIMEOUT: _ANSWER_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}
    try:
        with temporary_settings(briefly), get_client(sync_client=True) as client:
            answer = client.request("GET", "/health")
    except Exception as trouble:
        if isinstance(trouble, httpx.HTTPStatusError) and trouble.response.status_code == httpx.codes.NOT_FOUND:
            raise _build_address_error(url) from None
        advice = (
            f"{HOW_TO_START}, or correct the address"
            if lasting
            else "start it, correct the address, or unset PREFECT_API_URL to use one of the project's own"
        )
        raise UnavailableError(
            f"no Prefect server answers at PREFECT_API_URL ({url}): {_read_first_line(trouble)}; {advice}"
        ) from None
    if "html" in answer.headers.get("content-type", ""):
        raise _build_address_error(url)


def _build_address_error(url: str) -> SettingsError:
    if "/api" in urlsplit(url).path:
        return SettingsError(f"PREFECT_API_URL ({url}): what answers there is not Prefect's API; correct the address")
    return SettingsError(
        f"PREFECT_API_URL ({url}) is not the address of Prefect's API, which ends in /api: set it to "
        f"{url.rstrip('/')}/api"
    )


def _read_first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def find_free_port(port: int | None, option: str = "--port") -> int:
    """Check that a port is free, or find one.

    Args:
        port: to check; None: find one.
        option: which names another.

    Raises:
        ServerError: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port or 0))
        except OSError as error:
            words = f"port {port} cannot be used: {error.strerror}; name another with {option}"
            raise ServerError(words) from None
        return int(probe.getsockname()[1])


@contextmanager
def _run_own_server(port: int, *, ui: bool) -> Iterator[None]:
    log = Path(get_current_settings().home) / ("serve.log" if ui else "server.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flows.server", str(port), *(["--ui"] if ui else [])]
    environment = os.environ | build_environment(port)
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            command, cwd=_FLOWS, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as server,
    ):
        try:
            _wait_until_ready(server, log)
            yield
        finally:
            if server.stdin is not None:
                server.stdin.close()
            try:
                server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_until_ready(server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the line that the server prints when it is ready; its output ends if it fails."""
    output = cast("IO[bytes]", server.stdout)
    if not select.select([output], [], [], _STARTUP_SECONDS)[0]:
        raise ServerError(
            f"waited {_STARTUP_SECONDS} s for the project's own Prefect server, and it is not ready; try again when "
            "this machine has less to do, or set PREFECT_API_URL to the address of a server that lasts: "
            f"{HOW_TO_START}; {log} ends with:\n{_read_tail(log)}"
        )
    if not output.readline():
        raise ServerError(f"Prefect's server did not start; {log} ends with:\n{_read_tail(log)}")


def _read_tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip() or "(nothing)"


def guard(app: App, port: int) -> App:
    """Answer only requests that are addressed to this server and come from its own pages.

    Any page in a browser on this machine can send requests to a local port, some of them without a
    CORS preflight, and can read the answers through a DNS name that points to 127.0.0.1 (DNS
    rebinding).

    Args:
        app: the application to guard.
        port: where it is served.
    """
    hosts = {f"{host}:{port}".encode() for host in (_HOST, "localhost")}
    origins = {b"http://" + host for host in hosts}

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_own(scope["headers"]):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: the answer is 403
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send(
                {
                    "type": "http.response.body",
                    "body": b"only for requests to this server's address and from its own pages",
                }
            )

    def _is_own(headers: list[tuple[bytes, bytes]]) -> bool:
        named = [value for name, value in headers if name == b"host"]
        origin = [value for name, value in headers if name == b"origin"]
        return len(named) == 1 and named[0] in hosts and all(value in origins for value in origin)

    return guarded


def _serve_for_parent(port: int, *, ui: bool) -> None:
    """Serve until stdin, which the parent holds open, ends; print a line when ready."""
    import uvicorn

    class Server(uvicorn.Server):
        """A server that ignores signals and reports when it is ready."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            os.write(ready, b"ready\n")

    # Prefect's output goes to the log; stdout carries the one line alone.
    ready = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    server = Server(_configure(port, ui=ui))

    def end_with_parent() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        server.should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run()


def _configure(port: int, *, ui: bool) -> uvicorn.Config:
    import uvicorn
    from prefect.server.api.server import create_app

    from flows.server_database import use_waiting_database

    use_waiting_database()
    app = guard(create_app(final=True, ephemeral=not ui), port)
    return uvicorn.Config(app, host=_HOST, port=port, log_level="warning", timeout_graceful_shutdown=3)


def main() -> None:
    """Serve for a parent process, which handles the signals, or until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m flows.server", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--ui", action="store_true")
    parser.add_argument("--lasting", action="store_true")
    given = parser.parse_args()
    if given.lasting:
        import uvicorn

        uvicorn.Server(_configure(given.port, ui=given.ui)).run()
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _serve_for_parent(given.port, ui=given.ui)


if __name__ == "__main__":
    main()
