"""The deployments of prefect.yaml on this machine: a long-running process that starts their runs.

    python -m flows.serve [--file prefect.yaml] [--port 4200]

A run with nothing new to train ends at once, so a frequent schedule costs little. Schedules need a
lasting Prefect server: the one at PREFECT_API_URL, or one that this process starts, with its UI,
and stops. After a crash, a restart ends the runs that were left behind in Prefect's records, and
the schedules continue.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.runner import Runner
from prefect.settings import get_current_settings

from flows import PROJECT
from flows.approval import resume_answered_runs
from flows.automations import bring_up_to_date, build_notifications, build_trigger_automations
from flows.deployments import read_deployments
from flows.runs import RUNNER, end_dead_runs, ensure_gpu_limit, is_alive, skip_missed_runs
from flows.server import ensure_server
from oncoshift.errors import OncoshiftError, SettingsError
from oncoshift.files import hold_lock
from oncoshift.program import run_program
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from flows.deployments import ServedDeployment

_LAST_PORT = 65535
_POLL_SECONDS = 0.2
_ANSWERS_SECONDS = 10
_BEGIN_SECONDS = 60
"""How long to wait until a run that has just begun can end as Stopped, and not as Crashed."""


class ScheduleError(OncoshiftError):
    """Another process already serves this project."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description="Serve the deployments of prefect.yaml.")
    parser.add_argument("--file", type=Path, default=PROJECT / "prefect.yaml", help="list of deployments")
    parser.add_argument("--port", type=int, default=4200, help="of the server, where PREFECT_API_URL names none")
    return parser.parse_args(argv)


def serve(given: argparse.Namespace) -> None:
    """Serve until stopped; what is wrong in the list is said before a server is started.

    Raises:
        ScheduleError: another process serves this project.
        ServerError: see `ensure_server`.
        SettingsError: see `read_deployments`.
    """
    if not 0 < given.port <= _LAST_PORT:
        raise SettingsError(f"--port {given.port}: must be from 1 to {_LAST_PORT}")
    deployments = read_deployments(given.file)
    lock = Path(get_current_settings().home) / "serve.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    busy = ScheduleError(f"another `python -m flows.serve` serves {PROJECT}; stop it, or `make down`")
    with hold_lock(lock, busy=lambda: busy), ensure_server(given.port, ui=True) as own:
        print(f"project: {PROJECT}", flush=True)
        for run in end_dead_runs(own=own, pending=True):
            print(f"run {run!r} was killed earlier; Prefect now shows it as Crashed", flush=True)
        ensure_gpu_limit()
        api = remove_credentials(get_current_settings().api.url or "")
        print(f"Prefect's UI: {api.removesuffix('/api')}", flush=True)
        # This logger repeats that a run waits for the one before it.
        logging.getLogger("prefect.runner.state_proposer").setLevel(logging.WARNING)
        os.environ[RUNNER] = str(os.getpid())
        runner = StoppableRunner(name="oncoshift", pause_on_shutdown=False)
        served = register(runner, deployments)
        runner.look_for_answers = lambda: [name for each in served for name in resume_answered_runs(str(each))]
        if missed := sum(skip_missed_runs(each) for each in served):
            print(f"{missed} runs that were due while nothing served them are skipped; the last one runs", flush=True)
        prefect = shlex.quote(str(Path(sys.executable).with_name("prefect")))
        start = f"{prefect} deployment run {shlex.quote(deployments[0].name)}"
        print(f"to start a run at once: PREFECT_API_URL={shlex.quote(api)} {start}", flush=True)
        asyncio.run(runner.start())


def register(runner: Runner, deployments: Sequence[ServedDeployment]) -> list[UUID]:
    """Register deployments and automations with the server.

    Returns:
        Ids of the deployments.
    """
    served, automations = [], []
    for each in deployments:
        deployment: Any = runner.add_flow(each.flow, **each.options)
        served.append(deployment)
        automations += build_trigger_automations(deployment, each.triggers)
    automations += build_notifications(each.flow.name for each in deployments)
    bring_up_to_date(automations)
    return served


class StoppableRunner(Runner):
    """A runner that at SIGTERM or SIGINT lets its runs end with a checkpoint before it ends itself.

    Prefect's own runner exits at once, in the middle of its event loop, and leaves its run behind.
    """

    look_for_answers: Callable[[], list[str]] = list
    """Resumes suspended runs that are answered, and returns their names."""

    _stopping: asyncio.Task[None] | None = None

    async def start(self, run_once: bool = False, webserver: bool | None = None) -> None:
        """Run until stopped; `Runner.start` routes SIGTERM to `handle_sigterm`."""
        self._event_loop = asyncio.get_running_loop()
        self._event_loop.add_signal_handler(signal.SIGINT, self._end)
        looking = asyncio.create_task(self._keep_looking_for_answers())
        await super().start(run_once=run_once, webserver=webserver)
        looking.cancel()
        if self._stopping is not None:
            await self._stopping

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - signature of a signal handler
        """Schedule the stop in the event loop."""
        self._event_loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._stopping is None or self._stopping.done():
            print("stopping: a running retraining ends with a checkpoint", flush=True)
            self._stopping = self._event_loop.create_task(self._end_runs_and_stop())

    async def _keep_looking_for_answers(self) -> None:
        trouble = ""
        while True:
            await asyncio.sleep(_ANSWERS_SECONDS)
            try:
                for run in await asyncio.to_thread(self.look_for_answers):
                    print(f"run {run!r} goes on: its request for approval is settled", flush=True)
                trouble = ""
            except Exception as error:
                # Whatever it is, the schedule goes on.
                if str(error) != trouble:
                    print(f"cannot look for answers to requests for approval, and tries again: {error}", flush=True)
                trouble = str(error)

    async def _end_runs_and_stop(self) -> None:
        """Ask the runs to end, wait for them, and stop; `astop` would overwrite their states."""
        while not self.started:  # a signal may arrive during startup
            await asyncio.sleep(_POLL_SECONDS)
        self._scheduled_run_poller.stopping = True  # else a run that waits would start now
        runs = self._process_manager
        asked: set[UUID] = set()
        deadline = time.monotonic() + _BEGIN_SECONDS
        while running := runs.flow_run_ids():
            for run in running - asked:  # one that was about to start appears later
                begun = is_alive(run) or time.monotonic() > deadline
                if begun and (process := runs.get(run)) is not None and process.is_alive():
                    process.graceful_kill()
                    asked.add(run)
            await asyncio.sleep(_POLL_SECONDS)
        await self.astop()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped; `oncoshift.errors` lists the exit codes."""
    given = parse_arguments(argv)
    return run_program(lambda: serve(given))


if __name__ == "__main__":
    sys.exit(main())
