"""Everything on one machine: MLflow's and Prefect's servers, and the deployments of prefect.yaml.

    python -m flows.up [--mlflow-port 5000] [--prefect-port 4200]      (make up)
    python -m flows.up --down                                          (make down)

Each service is a process of its own with a log in .prefect/up/. A supervisor, itself such a
process, starts again what has died; where it is killed, the services go on, and the next call
starts another. `services.json` records each process by its id and the time of its start, so that
none is ever taken for another that has got its id.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
from prefect.settings import get_current_settings

from flows import PROJECT
from flows.databases import build_database_environments
from flows.deployments import read_deployments
from flows.runs import OWN_SERVER
from flows.server import build_address, build_environment, find_free_port
from oncoshift.errors import OncoshiftError
from oncoshift.experiments import resolve_tracking_uri
from oncoshift.files import atomic, hold_lock
from oncoshift.program import run_program
from oncoshift.registry.store import find_artifact_root
from oncoshift.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

_REPOSITORY = Path(__file__).resolve().parent.parent
_READY_SECONDS = 240
_POLL_SECONDS = 1
_STOP_SECONDS = 240
"""How long a training may take to end its step and write a checkpoint."""
_LONGEST_PAUSE_SECONDS = 60
_SERVICE = "ONCOSHIFT_SERVICE"
"""Environment variable by which the processes of a service, and what they start, are known."""
_TAIL = 1500


class UpError(OncoshiftError):
    """A service does not start or does not end."""


@dataclass(frozen=True)
class Service:
    """A process to keep running.

    Attributes:
        name: Its name, in messages and of its log.
        command: Its command.
        environment: Variables beside those of this process.
        health: Address that answers when it is ready; None: its log says so.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    health: str | None = None

    @property
    def log(self) -> Path:
        """Its output since it was last started."""
        return _get_folder() / f"{self.name}.log"

    def is_ready(self) -> bool:
        """Return whether it runs and does its work."""
        if find_process(self.name) is None:
            return False
        if self.health is None:
            return "to start a run at once" in self.log.read_text(encoding="utf-8", errors="replace")
        try:
            with urlopen(self.health, timeout=5) as answer:  # noqa: S310 - an address of ours
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def start(self) -> None:
        """Start it in a session of its own, which no signal to this process's group reaches."""
        end_leftovers(self.name)
        with self.log.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                self.command,
                cwd=_REPOSITORY,
                env=os.environ | self.environment | {_SERVICE: _build_mark(self.name)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _record(self.name, psutil.Process(process.pid))


def list_services(mlflow_port: int, prefect_port: int) -> list[Service]:
    """List the services in the order of their start.

    Raises:
        SettingsError: `ONCOSHIFT_DATABASE_URL` names no PostgreSQL database.
        UnavailableError: its database does not answer.
    """
    mlflow, prefect = build_address(mlflow_port), build_address(prefect_port)
    store = resolve_tracking_uri(PROJECT, load_settings(PROJECT / "params.yaml").tracking, {})
    artifacts = find_artifact_root(store) or (PROJECT / "mlruns" / "artifacts").as_uri()
    for_mlflow, for_prefect = build_database_environments(store)
    python, project = sys.executable, {"ONCOSHIFT_PROJECT": str(PROJECT)}
    return [
        Service(
            "mlflow",
            (python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1"),
            {
                **for_mlflow,
                "MLFLOW_ARTIFACTS_DESTINATION": artifacts,
                "MLFLOW_SERVE_ARTIFACTS": "true",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            f"{mlflow}/health",
        ),
        Service(
            "prefect",
            (python, "-m", "flows.server", str(prefect_port), "--ui", "--lasting"),
            project | for_prefect | build_environment(prefect_port),
            f"{prefect}/api/health",
        ),
        Service(
            "schedules",
            (python, "-m", "flows.serve"),
            project | {"PREFECT_API_URL": f"{prefect}/api", "MLFLOW_TRACKING_URI": mlflow, OWN_SERVER: "1"},
        ),
    ]


def up(mlflow_port: int, prefect_port: int) -> None:
    """Start what does not run, wait until all is ready, and print the addresses.

    Raises:
        SettingsError: see `read_deployments` and `list_services`.
        UpError: a service is not ready in time.
    """
    deployments = read_deployments(PROJECT / "prefect.yaml")
    services = list_services(mlflow_port, prefect_port)
    _get_folder().mkdir(parents=True, exist_ok=True)
    for name, port in {"mlflow": mlflow_port, "prefect": prefect_port}.items():
        if find_process(name) is None:
            find_free_port(port, f"--{name}-port")
    ports = ("--mlflow-port", str(mlflow_port), "--prefect-port", str(prefect_port))
    supervisor = Service("supervisor", (sys.executable, "-m", "flows.up", "--supervise", *ports), {})
    if find_process(supervisor.name) is None:
        supervisor.start()
    _wait_until_ready(supervisor, services)
    mlflow, prefect = build_address(mlflow_port), build_address(prefect_port)
    print(f"MLflow:       {mlflow}\nPrefect:      {prefect}")
    print(f"deployments:  {', '.join(each.name for each in deployments)}  (prefect.yaml)")
    print(f"logs:         {_get_folder()}")
    print(f"in a shell:   export MLFLOW_TRACKING_URI={mlflow} PREFECT_API_URL={prefect}/api")


def _wait_until_ready(supervisor: Service, services: Sequence[Service]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    for service in services:
        while not service.is_ready():
            ended = find_process(supervisor.name) is None
            if ended or time.monotonic() > deadline:
                log = supervisor.log if ended else service.log
                raise UpError(f"{service.name} is not ready; {log} ends with:\n{_read_tail(log)}")
            time.sleep(_POLL_SECONDS)


def supervise(services: Sequence[Service]) -> None:
    """Start what does not run, again and again; servers first, and then what needs them.

    A service that keeps dying before it is ready is started less and less often.
    """
    servers = {each.name for each in services if each.health}
    pauses, due = (dict.fromkeys((each.name for each in services), seconds) for seconds in (1.0, 0.0))
    with hold_lock(_get_folder() / "supervisor.lock", busy=lambda: UpError("another supervisor runs here")):
        while True:
            ready = {each.name for each in services if each.is_ready()}
            pauses |= dict.fromkeys(ready, 1.0)
            for name, service in ((each.name, each) for each in services):
                may_start = name in servers or servers <= ready
                if may_start and find_process(name) is None and time.monotonic() >= due[name]:
                    print(f"starting {name}", flush=True)
                    service.start()
                    due[name] = time.monotonic() + pauses[name]
                    pauses[name] = min(2 * pauses[name], _LONGEST_PAUSE_SECONDS)
            time.sleep(_POLL_SECONDS)


def down() -> None:
    """End the supervisor and then the services, the last started first.

    Raises:
        UpError: a service does not end in time.
    """
    for name in ("supervisor", "schedules", "prefect", "mlflow"):
        process = find_process(name)
        if process is None:
            continue
        print(f"stopping {name}", flush=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except psutil.TimeoutExpired:
            raise UpError(f"{name} (process {process.pid}) has not ended; see {_get_folder()}") from None
        end_leftovers(name)


def find_process(name: str) -> psutil.Process | None:
    """Find the process that is recorded under a name, if it still runs."""
    recorded = _read_records().get(name)
    if recorded is None:
        return None
    try:
        process = psutil.Process(recorded["pid"])
        if process.create_time() != recorded["started"]:
            return None
        process.wait(timeout=0)  # collects a child that has ended
    except psutil.TimeoutExpired:
        return process
    except psutil.NoSuchProcess:
        return None
    return None


def end_leftovers(name: str) -> None:
    """Kill what a killed service has left behind, such as workers that keep its port."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_SERVICE) == _build_mark(name):
                process.kill()
                process.wait(_POLL_SECONDS)


def _build_mark(name: str) -> str:
    return str(_get_folder() / name)


def _record(name: str, process: psutil.Process) -> None:
    records = _read_records() | {name: {"pid": process.pid, "started": process.create_time()}}
    with atomic(_get_folder() / "services.json") as temporary:
        temporary.write_text(json.dumps(records, indent=2), encoding="utf-8")


def _read_records() -> dict[str, dict[str, Any]]:
    try:
        records: dict[str, dict[str, Any]] = json.loads((_get_folder() / "services.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return records


def _read_tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip() if log.is_file() else "(not started)"


def _get_folder() -> Path:
    return Path(get_current_settings().home) / "up"


def main(argv: Sequence[str] | None = None) -> int:
    """Start or stop everything; `oncoshift.errors` lists the exit codes."""
    parser = argparse.ArgumentParser(prog="python -m flows.up", description="Start or stop everything on one machine.")
    parser.add_argument("--mlflow-port", type=int, default=5000)
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--down", action="store_true", help="stop instead")
    parser.add_argument("--supervise", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)

    def body() -> None:
        if given.down:
            down()
        elif given.supervise:
            supervise(list_services(given.mlflow_port, given.prefect_port))
        else:
            up(given.mlflow_port, given.prefect_port)

    return run_program(body)


if __name__ == "__main__":
    sys.exit(main())
