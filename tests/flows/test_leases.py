"""The places that runs take are given back although the Prefect server was killed meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prefect import flow, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending, Running
from support.ports import find_free_port

from flows.server import build_address, build_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
LEASE_SECONDS = 30
"""The shortest that Prefect allows."""


@contextmanager
def lasting_server(port: int, home: Path) -> Iterator[None]:
    """Run a server as `flows.up` does; kill it at the end of the block."""
    environment = os.environ | build_environment(port)
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": str(LEASE_SECONDS),
        "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "1",
    }
    with (home / "log").open("w") as log:
        command = [sys.executable, "-m", "flows.server", str(port), "--ui", "--lasting"]
        server = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(port), "an answer", 180)
        yield
    finally:
        server.kill()
        server.wait()


def answers(port: int) -> bool:
    with suppress(OSError):
        urllib.request.urlopen(f"{build_address(port)}/api/health", timeout=5).close()  # noqa: S310 - of this machine
        return True
    return False


def wait_until(reached: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"never reached: {what}"
        time.sleep(0.2)


@flow
def nothing() -> None:
    pass


@pytest.mark.slow
def test_the_place_of_a_run_that_died_with_the_server_goes_to_the_next(prefect_home: Callable[[], Path]) -> None:
    port, home = find_free_port(), prefect_home()
    with temporary_settings({PREFECT_API_URL: f"{build_address(port)}/api"}):
        with lasting_server(port, home), get_client(sync_client=True) as client:
            made = client.create_deployment(flow_id=client.create_flow(nothing), name="one", concurrency_limit=1)
            killed = client.create_flow_run_from_deployment(made)
            client.set_flow_run_state(killed.id, Pending())
            client.set_flow_run_state(killed.id, Running())
        with lasting_server(port, home), get_client(sync_client=True) as client:

            def count_taken() -> int:
                limit = client.read_deployment(made).global_concurrency_limit
                assert limit is not None
                return limit.active_slots

            waits = client.create_flow_run_from_deployment(made)
            client.set_flow_run_state(waits.id, Pending())
            assert client.read_flow_run(waits.id).state_name == "AwaitingConcurrencySlot"
            wait_until(lambda: count_taken() == 0, "a place that is given back", 2 * LEASE_SECONDS)
            following = client.create_flow_run_from_deployment(made)
            client.set_flow_run_state(following.id, Pending())
            assert client.read_flow_run(following.id).state_name == "Pending"
