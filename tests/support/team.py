"""Prefect for a team: its server on PostgreSQL with log-in, and workers, as processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import psutil
from prefect import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from sqlalchemy import make_url
from support.ports import find_free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

POOL = "process"
PATIENCE_SECONDS = 600

_AUTH = "admin:of-a-test-only"


class Team:
    """A Prefect server, and workers of its pool `process`, all with one project.

    Args:
        root: folder of the project; logs go there too.
        repository: the folder of the flows.
        database: URL of an empty PostgreSQL database for the server.
        environment: of the workers, beside what they need for Prefect.
    """

    def __init__(self, root: Path, repository: Path, database: str, environment: Mapping[str, str]) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.root, self._repository, self._database = root, repository, database
        self._port = find_free_port()
        self._url = f"http://127.0.0.1:{self._port}/api"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREF"))},
            "ONCOSHIFT_PROJECT": str(root),
            "PYTHONPATH": os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")]),
            "PYTHONUNBUFFERED": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PREFECT_HOME": str(root / ".prefect"),
            "PREFECT_API_URL": self._url,
            "PREFECT_API_AUTH_STRING": _AUTH,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            **environment,
        }

    def start_server(self) -> None:
        """Start the server, with the work pool, and wait until it answers."""
        url = make_url(self._database).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        settings = {
            "PREFECT_API_DATABASE_CONNECTION_URL": url,
            "PREFECT_HOME": str(self.root / "server"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_API_AUTH_STRING": _AUTH,
        }
        command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._port)]
        self._start("server", command, self._environment | settings)
        self.wait_until(self._is_healthy, "a Prefect server")

    def start_worker(self, name: str) -> None:
        """Start a worker that runs one flow at a time."""
        options = ["--pool", POOL, "--type", "process", "--install-policy", "never", "--limit", "1"]
        self._start(name, ["prefect", "worker", "start", "--name", name, *options], self._environment)

    def call(self, *command: str) -> str:
        """Run a module to its end as a worker would; return its output."""
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=self._repository, env=self._environment, capture_output=True,
            text=True, check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def read_log(self, name: str) -> str:
        """Read what a process has written, and what the flows that it ran have."""
        return self._get_log(name).read_text(errors="replace")

    def list_pids(self, name: str) -> set[int]:
        """List the ids of a process and of all that it has started."""
        return {process.pid for process in self._list_family(name)}

    def wait_for_worker(self, run: UUID) -> str:
        """Wait until a worker runs a run; return the worker's name."""
        self.wait_until(lambda: self.read_run(run).infrastructure_pid is not None, f"a process for {run}")
        pid = int(str(self.read_run(run).infrastructure_pid).rpartition(":")[2])
        (found,) = (name for name in self.processes if pid in self.list_pids(name))
        return found

    def kill(self, name: str) -> None:
        """Kill a process with all that it has started, as where its machine goes down."""
        family = self._list_family(name)
        for process in family:  # the worker first: else it would report the death of its run
            process.kill()
        self.processes.pop(name).wait()
        assert psutil.wait_procs(family, timeout=30)[1] == []

    def end(self) -> None:
        """Kill what still runs."""
        for name in list(self.processes):
            if self.processes[name].poll() is None:
                self.kill(name)

    @contextmanager
    def open_client(self) -> Iterator[SyncPrefectClient]:
        """Open a client of the server."""
        with (
            temporary_settings({PREFECT_API_URL: self._url, PREFECT_API_AUTH_STRING: _AUTH}),
            get_client(sync_client=True) as client,
        ):
            yield client

    def start_run(self, deployment: str) -> UUID:
        """Ask for a run of a deployment."""
        with self.open_client() as client:
            return client.create_flow_run_from_deployment(client.read_deployment_by_name(deployment).id).id

    def read_run(self, run: UUID) -> FlowRun:
        """Read a run as the server knows it."""
        with self.open_client() as client:
            return client.read_flow_run(run)

    def has_ended(self, run: UUID) -> bool:
        """Tell whether no process works for a run any more: it is over, or awaits a person."""
        state = self.read_run(run).state
        return state is not None and (state.is_final() or state.is_paused())

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            tails = {name: self.read_log(name)[-3000:] for name in self.processes}
            assert not ended, f"{ended} ended before {what}: {tails}"
            assert time.monotonic() < deadline, f"never reached: {what}: {tails}"
            time.sleep(0.2)

    def _start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        with self._get_log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=self._repository, env=environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _list_family(self, name: str) -> list[psutil.Process]:
        first = psutil.Process(self.processes[name].pid)
        return [first, *first.children(recursive=True)]

    def _get_log(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self._url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False
