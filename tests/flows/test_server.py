"""A project's own Prefect server answers only its own address, and ends with its parent."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from support.answering import answering
from support.ports import find_free_port

from flows.server import ServerError, check_server_answers, ensure_server, guard
from oncoshift.errors import SettingsError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

REPOSITORY = Path(__file__).resolve().parents[2]
OWN, PAGE = b"127.0.0.1:4200", b"http://127.0.0.1:4200"


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"host", OWN)], 200),
        ([(b"host", b"localhost:4200"), (b"origin", b"http://localhost:4200")], 200),
        ([(b"host", OWN), (b"origin", PAGE)], 200),
        ([(b"host", OWN), (b"origin", b"https://evil.example")], 403),
        ([(b"host", OWN), (b"origin", b"null")], 403),
        ([(b"host", OWN), (b"origin", b"http://127.0.0.1:8080")], 403),
        ([(b"host", OWN), (b"origin", PAGE), (b"origin", b"https://evil.example")], 403),
        ([(b"host", b"evil.example:4200")], 403),
        ([(b"host", OWN), (b"host", b"evil.example")], 403),
        ([], 403),
    ],
)
def test_only_our_own_address_and_pages_are_answered(headers: list[tuple[bytes, bytes]], status: int) -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(guard(answer, 4200)({"type": "http", "headers": headers}, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == status
    sent.clear()
    asyncio.run(guard(answer, 4200)({"type": "websocket", "headers": headers}, None, send))  # type: ignore[arg-type]
    assert (sent[0]["type"] == "websocket.close") == (status == 403)


def test_a_port_that_is_taken_is_told_before_a_server_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServerError, match=f"port {port} cannot be used: Address already in use; name another"),
            ensure_server(port),
        ):
            pytest.fail("it started")


def test_a_server_that_is_slow_to_start_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\necho creating the database >&2\ncat\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr("flows.server._STARTUP_SECONDS", 1)
    words = (
        "waited 1 s for the project's own Prefect server.*; try again .*`prefect server start`.*:\ncreating the data"
    )
    with (
        temporary_settings({PREFECT_HOME: tmp_path}, restore_defaults={PREFECT_API_URL}),
        pytest.raises(ServerError, match=words),
        ensure_server(),
    ):
        pytest.fail("it started")


@pytest.fixture(scope="module")
def server(prefect_home: Callable[[], Path]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process of a server started as `ensure_server` does, and its address."""
    port = find_free_port()
    environment = os.environ | {"PREFECT_HOME": str(prefect_home()), "PREFECT_SERVER_API_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.server", str(port)],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process, f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


def ask(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answered:  # noqa: S310
            return int(answered.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_signal_does_not_end_it_and_the_end_of_its_parent_does(server: tuple[subprocess.Popen[bytes], str]) -> None:
    process, address = server
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
    time.sleep(0.5)
    assert ask(f"{address}/api/health") == 200
    assert ask(f"{address}/api/health", Origin="https://evil.example") == 403
    assert process.stdin is not None
    process.stdin.close()  # as the system does for a killed parent
    process.wait(timeout=60)
    assert not psutil.pid_exists(process.pid)


def test_a_configured_server_that_does_not_answer_is_named() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://user:hush@127.0.0.1:1/api"}),
        pytest.raises(UnavailableError, match=r"at PREFECT_API_URL \(http://127.0.0.1:1/api\): .* start it, correct"),
        ensure_server(),
    ):
        pytest.fail("it started")


@pytest.mark.parametrize(("status", "kind"), [(404, "application/json"), (200, "text/html")], ids=["none", "pages"])
def test_an_address_that_is_not_that_of_the_api_is_told(status: int, kind: str) -> None:
    with answering(status, kind) as address:
        wrong = f"({address}) is not the address of Prefect's API, which ends in /api: set it to {address}/api"
        for configured, words in ((address, wrong), (f"{address}/api", "what answers there is not Prefect's API")):
            with (
                temporary_settings({PREFECT_API_URL: configured}),
                pytest.raises(SettingsError, match=re.escape(words)),
                ensure_server(),
            ):
                pytest.fail("it started")


def test_where_a_lasting_server_is_needed_nobody_is_told_to_do_without() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(UnavailableError, match="start one by `prefect server start`, or by `make up`") as caught,
    ):
        check_server_answers("http://127.0.0.1:1/api", lasting=True)
    assert "unset" not in str(caught.value)


@pytest.mark.parametrize("name", ["prefect.flow_runs", "prefect.engine"])
def test_the_address_of_a_run_is_told_only_where_it_has_pages(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setattr("flows.server._run_own_server", lambda *_, **__: nullcontext())
    logger = logging.getLogger(name)
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logging.getLogger("prefect"), "propagate", True)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        for ui in (False, True):
            with ensure_server(ui=ui):
                logger.warning(f"View at http://127.0.0.1:1/runs/{ui}")
                logger.warning("Beginning flow run")
    assert caplog.messages == ["Beginning flow run", "View at http://127.0.0.1:1/runs/True", "Beginning flow run"]
