"""`flows.serve` of a project, as a person starts and stops it, and the runs that it started."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import yaml
from e2e.conftest import REPOSITORY
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from support.ports import find_free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from e2e.conftest import Project
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

BEGUN = [kind for kind in StateType if kind not in (StateType.SCHEDULED, StateType.PENDING)]


class Schedule:
    """`flows.serve` of a project, and its Prefect server.

    Args:
        project: of the flow.
        cron: when runs start.
    """

    def __init__(self, project: Project, cron: str = "* * * * *") -> None:
        self.project = project
        listed = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
        (retrain,) = (each for each in listed["deployments"] if each["name"] == "retrain")
        retrain["schedules"] = [{"slug": "test", "cron": cron}]
        (project.root / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [retrain]}))
        self.port = str(find_free_port())
        self.server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.server = self.project.start("--port", self.port, module="flows.serve")
        self.wait_until(lambda: "to start a run at once: " in self.project.log.read_text(), "its Prefect server")

    def end(self, number: signal.Signals, send: Callable[[int, signal.Signals], None] = os.killpg) -> int:
        """Send a signal to the process group or the process alone; return the exit code.

        It fails if any process is left behind.
        """
        assert self.server is not None
        family = [psutil.Process(self.server.pid), *psutil.Process(self.server.pid).children(recursive=True)]
        send(self.server.pid, number)
        code = self.server.wait(timeout=240)
        assert psutil.wait_procs(family, timeout=30)[1] == [], "no process is left behind"
        return code

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
        assert self.server is not None
        deadline = time.monotonic() + 600
        while not reached():
            assert self.server.poll() is None, f"ended before {what}: {self.project.log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"never reached: {what}: {self.project.log.read_text()[-4000:]}"
            time.sleep(1)

    def ended(self) -> list[FlowRun]:
        """List the runs that have ended, in the order of their start."""
        return [run for run in self.runs() if run.state is not None and run.state.is_final()]

    def runs(self) -> list[FlowRun]:
        """List the runs that have started, in the order of their start.

        Those that came due while nobody served, and are made up for by one, never started.
        """
        begun = FlowRunFilterState(type=FlowRunFilterStateType(any_=BEGUN))
        with self.open_client() as client:
            found = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=begun), sort=FlowRunSort.START_TIME_ASC, limit=100
            )
        return [run for run in found if run.state_name != "Skipped"]

    @contextmanager
    def open_client(self) -> Iterator[SyncPrefectClient]:
        """Open a client of the Prefect server."""
        with (
            temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{self.port}/api"}),
            get_client(sync_client=True) as client,
        ):
            yield client

    def kill(self) -> None:
        """Kill what is left of it."""
        if self.server is not None and self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()
