"""The retraining flow on a schedule: a long-running process that starts runs by a cron expression.

    python -m flows.serve [--cron "0 2 * * *"] [--timezone UTC] [--preset NAME] [--set KEY=VALUE]
    [--port 4200]

A run with nothing new to train ends at once, so a frequent schedule costs little. A schedule needs
a lasting Prefect server: the one at PREFECT_API_URL, or one that this process starts, with its UI,
and stops. After a crash, a restart ends the runs that were left behind in Prefect's records, and
the schedule continues.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect.client.schemas.schedules import CronSchedule
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.settings import get_current_settings
from pydantic import ValidationError

from flows import PROJECT
from flows.approval import resume_answered_runs
from flows.retrain import retrain
from flows.runs import RUNNER, end_dead_runs, ensure_gpu_limit, skip_missed_runs
from flows.server import ensure_server
from oncoshift.errors import OncoshiftError, SettingsError
from oncoshift.files import hold_lock
from oncoshift.program import run_program
from oncoshift.secrets import remove_credentials
from oncoshift.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from oncoshift.settings import Settings

_LAST_PORT = 65535
_POLL_SECONDS = 0.2
_ANSWERS_SECONDS = 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ScheduleError(OncoshiftError):
    """Another process already serves this schedule."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve", description="Serve the retraining flow on a schedule."
    )
    parser.add_argument("--cron", default="0 2 * * *", help="when, as a cron expression; default: every night at two")
    parser.add_argument("--timezone", default="UTC", help="of the cron expression, for example Europe/Berlin")
    parser.add_argument("--port", type=int, default=4200, help="of the server, where PREFECT_API_URL names none")
    parser.add_argument("--name", default="scheduled", help="of the deployment")
    parser.add_argument("--preset", metavar="NAME")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(argv)


def check_arguments(given: argparse.Namespace) -> None:
    """Validate the command line before a server is started.

    Raises:
        SettingsError: the cron expression, time zone, name, port or a setting is invalid.
    """
    try:
        CronSchedule(cron=given.cron, timezone=given.timezone)
    except ValidationError as error:
        wrong = "timezone" if error.errors()[0]["loc"] == ("timezone",) else "cron"
        raise SettingsError(f"--{wrong} {getattr(given, wrong)!r}: {_to_one_line(error)}") from None
    if not _NAME.fullmatch(given.name):
        raise SettingsError(f"--name {given.name!r}: use letters, digits, dots, dashes and underscores")
    if not 0 < given.port <= _LAST_PORT:
        raise SettingsError(f"--port {given.port}: must be from 1 to {_LAST_PORT}")
    load_own_settings(given)


def load_own_settings(given: argparse.Namespace) -> Settings:
    """Load the settings that the scheduled runs will have.

    Raises:
        SettingsError: a setting is invalid.
    """
    return load_settings(PROJECT / "params.yaml", preset=given.preset, overrides=tuple(given.overrides), trusted=False)


def serve(given: argparse.Namespace) -> None:
    """Serve until stopped.

    Raises:
        ScheduleError: another process serves a deployment of this name.
        ServerError: see `ensure_server`.
    """
    lock = Path(get_current_settings().home) / f"serve-{given.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    busy = ScheduleError(f"another `python -m flows.serve` serves {given.name!r} here; stop it, or give another --name")
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
        runner = StoppableRunner(name=given.name, pause_on_shutdown=False)
        served = cast("UUID", runner.add_flow(retrain, **build_deployment(given)))
        runner.look_for_answers = lambda: resume_answered_runs(str(served), lambda: load_own_settings(given))
        prefect = Path(sys.executable).with_name("prefect")
        start = f"{shlex.quote(str(prefect))} deployment run {shlex.quote(f'{retrain.name}/{given.name}')}"
        print(f"to start a run at once: PREFECT_API_URL={shlex.quote(api)} {start}", flush=True)
        if missed := skip_missed_runs(served):
            print(f"{missed} runs that were due while nothing served them are skipped; the last one runs", flush=True)
        asyncio.run(runner.start())


def build_deployment(given: argparse.Namespace) -> dict[str, Any]:
    """Build the deployment: name, schedule and parameters."""
    return {
        "name": given.name,
        # The slug preserves a schedule that was paused or changed in the UI across restarts.
        "schedule": Cron(given.cron, timezone=given.timezone, slug=given.name),
        "parameters": {"preset": given.preset, "overrides": given.overrides},
        "concurrency_limit": 1,
    }


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
        runs = self._process_manager
        for run in runs.flow_run_ids():
            if (process := runs.get(run)) is not None and process.is_alive():
                process.graceful_kill()
        while runs.flow_run_ids():
            await asyncio.sleep(_POLL_SECONDS)
        await self.astop()


def _to_one_line(error: ValidationError) -> str:
    message = error.errors()[0]["msg"].removeprefix("Value error, ")
    return " ".join(message.split())


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped; `oncoshift.errors` lists the exit codes."""
    given = parse_arguments(argv)

    def body() -> None:
        check_arguments(given)
        serve(given)

    return run_program(body)


if __name__ == "__main__":
    sys.exit(main())
