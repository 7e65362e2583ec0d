"""All that `make up` starts for a project, with a small flow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml
from e2e.conftest import REPOSITORY
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from support.ports import find_free_port

from flows.runs import GPU

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.conftest import Project
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

TESTS = REPOSITORY / "tests"
PATIENCE_SECONDS = 600


def write_schedules(project: Project, *schedules: dict[str, Any]) -> None:
    """Make the small flow the project's only deployment; runs wait for one another."""
    deployment = {
        "name": "small",
        "entrypoint": "e2e.small.small",
        "concurrency_limit": 1,
        "schedules": list(schedules),
    }
    (project.root / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [deployment]}))


class Platform:
    """What `make up` starts for a project.

    Args:
        project: whose platform it is.
        environment: variables beside those of this process.
    """

    def __init__(self, project: Project, environment: dict[str, str] | None = None) -> None:
        self.project = project
        self.ports = find_free_port(), find_free_port()
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_TRACK", "PREF"))
        }
        self.environment |= {
            "ONCOSHIFT_PROJECT": str(project.root),
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            **(environment or {}),
        }

    def call(self, *arguments: str) -> str:
        """Run `python -m flows.up`; return its output."""
        ports = ["--mlflow-port", str(self.ports[0]), "--prefect-port", str(self.ports[1])]
        run = subprocess.run(
            [sys.executable, "-m", "flows.up", *ports, *arguments],
            cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
        return run.stdout

    def is_ready(self) -> bool:
        """Tell whether both servers answer and the schedules are served."""
        for port, path in zip(self.ports, ("health", "api/health"), strict=True):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5).close()
        served = any("flows.serve" in process.cmdline() for process in self.find_processes("schedules"))
        return served and "to start a run at once" in self.read_log("schedules")

    def read_log(self, service: str) -> str:
        """Read what a service has said since it was last started."""
        return (self.project.root / ".prefect" / "up" / f"{service}.log").read_text()

    @contextmanager
    def open_client(self) -> Iterator[SyncPrefectClient]:
        """Open a client of Prefect's server."""
        address = f"http://127.0.0.1:{self.ports[1]}/api"
        with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
            yield client

    def list_runs(self) -> list[FlowRun]:
        """List all runs in the order in which they are due."""
        with self.open_client() as client:
            found = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(), sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=200
            )
        return [run for run in found if run.state_name != "Skipped"]

    def list_taken(self) -> dict[str, int]:
        """List how many places are taken in each limit."""
        with self.open_client() as client:
            (made,) = {run.deployment_id for run in self.list_runs() if run.deployment_id}
            limit = client.read_deployment(made).global_concurrency_limit
            assert limit is not None
            return {
                "deployment": limit.active_slots,
                GPU: client.read_global_concurrency_limit_by_name(GPU).active_slots,
            }

    def find_processes(self, service: str | None = None) -> list[psutil.Process]:
        """Find the processes of a service and of what it has started, or of all services."""
        folder = self.project.root / ".prefect" / "up"
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mark = Path(process.environ().get("ONCOSHIFT_SERVICE", "/"))
                if mark.parent == folder and service in (None, mark.name):
                    found.append(process)
        return found

    def find_run(self) -> psutil.Process | None:
        """Find the process of a run that holds both limits."""
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            return psutil.Process(int((self.project.root / "small.pid").read_text()))
        return None

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for a condition; servers may be away meanwhile."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with suppress(Exception):  # whatever a client says of a server that is being started
                if reached():
                    return
            assert time.monotonic() < deadline, f"never reached: {what}: {self.read_log('schedules')[-4000:]}"
            time.sleep(0.5)


def is_final(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()
