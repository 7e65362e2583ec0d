"""Whatever of `make up` dies, the next run starts at its time and nothing stays taken.

With ONCOSHIFT_FIGURES set to a file, a row on each way is added; docs/reliability.md has them.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from e2e.conftest import new_project
from e2e.one_machine import Platform, is_final, write_schedules

from flows.runs import GPU

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect.client.schemas.objects import FlowRun

MINUTE = timedelta(minutes=1)
"""From one run to the next; a process takes long to start on a busy machine."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, prefect_home: Callable[[], Path]) -> Iterator[Platform]:
    project = new_project(tmp_path_factory.mktemp("project"))
    prefect_home().rename(project.root / ".prefect")
    write_schedules(project, {"slug": "test", "cron": "* * * * *"})
    made = Platform(project)
    try:
        made.call()
        yield made
    finally:
        made.call("--down")


def kill(*services: str) -> Callable[[Platform], None]:
    """Kill services, each with all that it has started."""

    def go(platform: Platform) -> None:
        for service in services:
            for process in platform.find_processes(service):
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    return go


def kill_run(platform: Platform) -> None:
    """Kill the run's process alone."""
    run = platform.find_run()
    assert run is not None
    run.kill()


def kill_recorded(service: str) -> Callable[[Platform], None]:
    """Kill a service's first process alone, as the system does where memory is short."""

    def go(platform: Platform) -> None:
        first = min(platform.find_processes(service), key=lambda process: process.create_time())
        first.kill()
        first.wait(30)

    return go


def terminate_group(platform: Platform) -> None:
    """Send SIGTERM to the group of the schedules, with their run."""
    os.killpg(min(platform.find_processes("schedules"), key=lambda process: process.create_time()).pid, signal.SIGTERM)


def reboot(number: signal.Signals) -> Callable[[Platform], None]:
    """Send all processes a signal, kill what is left after seconds, and start the platform."""

    def go(platform: Platform) -> None:
        found = platform.find_processes()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        for process in psutil.wait_procs(found, timeout=20)[1]:
            process.kill()
        platform.call()

    return go


def start_again(platform: Platform) -> None:
    platform.call("--down")
    assert platform.find_processes() == []
    platform.call()


def kill_supervisor(platform: Platform) -> None:
    kill_recorded("supervisor")(platform)
    platform.call()


WAYS: dict[str, Any] = {
    "SIGKILL to the run": (kill_run, "Crashed"),
    "SIGKILL to Prefect's server": (kill("prefect"), "Done"),
    "SIGKILL to MLflow's server": (kill("mlflow"), "Done"),
    "SIGKILL to the schedules": (kill_recorded("schedules"), "Crashed"),
    "SIGTERM to the schedules' process group": (terminate_group, "Stopped"),
    "SIGKILL to the supervisor, then `make up`": (kill_supervisor, "Done"),
    "SIGKILL to all at once, then `make up`": (reboot(signal.SIGKILL), "Crashed"),
    "SIGTERM to all at once, then `make up`": (reboot(signal.SIGTERM), "Crashed", "Stopped"),
    "`make down`, `make up`": (start_again, "Stopped", "Done"),
}
"""What is done while a run holds both limits, and how that run ends."""


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_next_run_starts_at_its_time_and_nothing_stays_taken(platform: Platform, way: str) -> None:
    cause, *ends = WAYS[way]
    held = {"deployment": 1, GPU: 1}
    platform.wait_until(
        lambda: platform.find_run() is not None and platform.list_taken() == held, "a run that holds both"
    )
    (running,) = (run for run in platform.list_runs() if run.state_name == "Running")
    process = platform.find_run()
    began = time.monotonic()
    cause(platform)
    platform.wait_until(platform.is_ready, "all that was killed")
    back = datetime.now(UTC)
    seconds = time.monotonic() - began

    def find_next() -> FlowRun:
        return next(run for run in platform.list_runs() if run.expected_start_time and run.expected_start_time > back)

    platform.wait_until(lambda: is_final(find_next()), "the end of the next run")
    following = find_next()
    assert following.state_name == "Done"
    assert following.expected_start_time is not None
    assert following.expected_start_time - back < MINUTE, "none was left out"
    assert following.start_time is not None
    late = following.start_time - following.expected_start_time
    assert late < MINUTE
    platform.wait_until(lambda: set(platform.list_taken().values()) == {0}, "free places")
    runs = platform.list_runs()
    earlier = runs[: [run.id for run in runs].index(following.id)]
    assert [run.state_name for run in earlier if not is_final(run)] == []
    (ended,) = (run for run in earlier if run.id == running.id)
    if file := os.environ.get("ONCOSHIFT_FIGURES"):
        with Path(file).open("a") as figures:
            figures.write(f"| {way} | {ended.state_name} | {seconds:.0f} s | {late.total_seconds():.0f} s |\n")
    assert ended.state_name in ends
    assert process is None or not process.is_running()
