"""A schedule that is killed during a run goes on after `flows.serve` is restarted."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import psutil
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from support.ports import find_free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from e2e.conftest import Project
    from prefect.client.schemas.objects import FlowRun

BEGUN = [kind for kind in StateType if kind not in (StateType.SCHEDULED, StateType.PENDING)]


class Schedule:
    """`flows.serve` of a project, every minute, and its Prefect server."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.port = str(find_free_port())
        self.server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.server = self.project.start("--cron", "* * * * *", "--port", self.port, module="flows.serve")
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
        with (
            temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{self.port}/api"}),
            get_client(sync_client=True) as client,
        ):
            found = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=begun), sort=FlowRunSort.START_TIME_ASC, limit=100
            )
        return [run for run in found if run.state_name != "Skipped"]


def epochs_done(project: Project) -> int:
    """Count the epochs of the control that the log reports since the last start."""
    return project.log.read_text().count("erm seed 0: epoch")


def test_a_schedule_that_was_killed_or_stopped_goes_on_when_it_is_started_again(project: Project) -> None:
    project.change(
        train={"epochs": 16, "steps_per_epoch": 2}, tune={"trials": 0}, retrain={"seeds": 1}, select={"verdict": False}
    )
    schedule = Schedule(project)
    try:
        schedule.start()
        schedule.wait_until(lambda: epochs_done(project) > 2, "the control's third epoch")
        assert schedule.end(signal.SIGKILL) == -signal.SIGKILL

        schedule.start()
        schedule.wait_until(lambda: epochs_done(project) > 2, "a run that trains, after SIGKILL")
        assert "was killed earlier; Prefect now shows it as Crashed" in project.log.read_text()
        killed, going = schedule.runs()
        assert (killed.state_name, going.state_name) == ("Crashed", "Running")
        assert schedule.end(signal.SIGTERM) == 0
        assert "Traceback" not in project.log.read_text()
        assert "Finished in state Stopped(" in project.log.read_text()

        schedule.start()
        schedule.wait_until(lambda: len(schedule.ended()) >= 4, "a run that ends, and one after it")
        killed, stopped, promoted, unchanged = schedule.ended()[:4]
        assert (killed.state_name, stopped.state_name) == ("Crashed", "Stopped")
        assert stopped.state_type == StateType.CANCELLED
        assert (promoted.state_name, promoted.name) == ("Promoted", "kidney: promoted, version 1 is champion")
        assert (unchanged.state_name, unchanged.name) == ("Unchanged", "kidney: unchanged, version 1 is champion")
        assert unchanged.state is not None
        assert str(unchanged.state.message).startswith("Nothing was trained: data, settings and code are those of")
        assert schedule.end(signal.SIGTERM, os.kill) == 0
    finally:
        if schedule.server is not None and schedule.server.poll() is None:
            os.killpg(schedule.server.pid, signal.SIGKILL)
            schedule.server.wait()
