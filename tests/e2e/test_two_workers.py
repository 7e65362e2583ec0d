"""Two workers retrain two targets at once; what a killed one leaves, the other finishes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest
import yaml
from e2e.conftest import REPOSITORY, Project
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import create_engine, make_url
from sqlalchemy.schema import CreateSchema
from support.ports import find_free_port
from support.postgresql import running_server

from oncoshift.registry.history import find_champion, list_versions
from oncoshift.registry.tracking import KEY_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

pytestmark = pytest.mark.slow

TARGETS = {"kidney": ["lung", "colon"], "lung": ["colon", "kidney"]}
PATIENCE_SECONDS = 900


class Team:
    """A lasting Prefect server on PostgreSQL, and workers of its pool `process`.

    Args:
        project: what they work on.
        environment: of all processes.
    """

    def __init__(self, project: Project, environment: Mapping[str, str]) -> None:
        self.project, self.environment = project, dict(environment)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        """Start a process whose output goes to a file."""
        with self.get_log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=REPOSITORY, env=self.environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def start_worker(self, name: str) -> None:
        """Start a worker that runs one flow at a time."""
        options = ["--pool", "process", "--type", "process", "--install-policy", "never", "--limit", "1"]
        self.start(name, "prefect", "worker", "start", "--name", name, *options)

    def call(self, *command: str) -> str:
        """Run a module to its end; return its output."""
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=REPOSITORY, env=self.environment, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get_log(self, name: str) -> Path:
        """Return the file with a process's output."""
        return self.project.root / f"{name}.log"

    def list_families(self, name: str) -> list[psutil.Process]:
        """List a process and all that it has started."""
        first = psutil.Process(self.processes[name].pid)
        return [*first.children(recursive=True), first]

    def kill(self, name: str) -> None:
        """Kill a process with all that it has started, as where its machine goes down."""
        family = self.list_families(name)
        for process in reversed(family):  # the worker first: else it would report the death of its run
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
            temporary_settings({PREFECT_API_URL: self.environment["PREFECT_API_URL"]}),
            get_client(sync_client=True) as client,
        ):
            yield client

    def start_run(self, target: str) -> UUID:
        """Ask for a run of a target's deployment."""
        with self.open_client() as client:
            deployment = client.read_deployment_by_name(f"retrain/retrain-{target}")
            return client.create_flow_run_from_deployment(deployment.id).id

    def read_run(self, run: UUID) -> FlowRun:
        """Read a run as the server knows it."""
        with self.open_client() as client:
            return client.read_flow_run(run)

    def get_state(self, run: UUID) -> str:
        """Return the name of a run's state."""
        return str(self.read_run(run).state_name)

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            tails = {name: self.get_log(name).read_text(errors="replace")[-3000:] for name in self.processes}
            assert time.monotonic() < deadline, f"never reached: {what}: {tails}"
            time.sleep(0.5)


@pytest.fixture
def team(project: Project) -> Iterator[Team]:
    """A server and two deployments, with a study of each target in one database."""
    with ExitStack() as stack:
        database = stack.enter_context(running_server()).url
        engine = create_engine(database)
        with engine.begin() as connection:
            for schema in ("prefect", "studies"):
                connection.execute(CreateSchema(schema))
        engine.dispose()
        studies = make_url(database).update_query_dict({"options": "-csearch_path=studies"})
        project.change(
            train={"epochs": 30, "steps_per_epoch": 2},
            tune={"trials": 2, "storage": studies.render_as_string(hide_password=False)},
            retrain={"seeds": 1},
            select={"verdict": False},
        )
        listed = [
            {
                "name": f"retrain-{target}",
                "entrypoint": "flows.retrain.retrain",
                "work_pool": {"name": "process"},
                "concurrency_limit": 1,
                "parameters": {"target": target, "sources": sources},
            }
            for target, sources in TARGETS.items()
        ]
        (project.root / "prefect.yaml").write_text(yaml.safe_dump({"deployments": listed}))
        port = find_free_port()
        prefect = make_url(database).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        made = Team(
            project,
            {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_TRACK", "PREF"))}
            | {
                "ONCOSHIFT_PROJECT": str(project.root),
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
                "PYTHONUNBUFFERED": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "PREFECT_HOME": str(project.root / ".prefect"),
                "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": prefect,
                "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_SEARCH_PATH": "prefect,public",
                "PREFECT_WORKER_QUERY_SECONDS": "2",
            },
        )
        stack.callback(made.end)
        made.start("server", "flows.server", str(port), "--lasting", "--ui")
        made.wait_until(lambda: is_healthy(made), "a Prefect server")
        made.call("prefect", "work-pool", "create", "process", "--type", "process")
        made.call("prefect", "global-concurrency-limit", "create", "gpu", "--limit", "2")
        yield made


def is_healthy(team: Team) -> bool:
    """Tell whether the server answers."""
    assert team.processes["server"].poll() is None, team.get_log("server").read_text()
    with team.open_client() as client:
        return client.api_healthcheck() is None


def is_training(team: Team, worker: str, target: str) -> bool:
    """Tell whether a worker's log has an epoch of a target's control."""
    lines = team.get_log(worker).read_text(errors="replace").splitlines()
    return any(f"retrain {target}" in line and "erm seed 0: epoch 2/" in line for line in lines)


def test_what_a_killed_worker_leaves_the_other_finishes_and_nothing_is_doubled(team: Team) -> None:
    assert team.call("flows.deploy").splitlines() == [
        f"retrain/retrain-{target}: work pool process" for target in TARGETS
    ]
    for name in ("first", "second"):
        team.start_worker(name)
    runs = {target: team.start_run(target) for target in TARGETS}
    workers = {}
    for target in TARGETS:
        team.wait_until(
            lambda target=target: any(is_training(team, name, target) for name in ("first", "second")),  # type: ignore[misc]
            f"a training for {target}",
        )
        (workers[target],) = (name for name in ("first", "second") if is_training(team, name, target))
    assert set(workers.values()) == {"first", "second"}, "both at once, each on a worker of its own"
    assert {team.get_state(run) for run in runs.values()} == {"Running"}

    team.kill(workers["kidney"])
    again = team.start_run("kidney")
    team.wait_until(lambda: team.read_run(runs["lung"]).state.is_final(), "the end of the other retraining")
    team.wait_until(lambda: team.read_run(again).state.is_final(), "the end of what was killed")
    assert {team.get_state(run) for run in (runs["lung"], again)} <= {"Promoted", "Refused"}
    log = team.get_log(workers["lung"]).read_text(errors="replace")
    assert "erm seed 0: goes on after epoch" in log, "from the last checkpoint"
    assert team.get_state(runs["kidney"]) == "Crashed", "which the next run says of it"

    client = team.project.client
    experiment = client.get_experiment_by_name("oncoshift")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    keys = Counter(run.data.tags[KEY_TAG] for run in found)
    assert max(keys.values()) == 1, keys.most_common(3)
    assert {run.info.status for run in found} == {"FINISHED"}
    retrainings = [run for run in found if run.data.tags["oncoshift.step"] == "retrain"]
    assert sorted(run.data.tags["oncoshift.target"] for run in retrainings) == sorted(TARGETS)
    trials = [run for run in found if run.data.tags["oncoshift.step"] == "trial"]
    assert len(trials) == 2 * len(TARGETS)
    for target in TARGETS:
        versions = list_versions(client, f"oncoshift-{target}")
        assert len(versions) == 1
        assert find_champion(client, f"oncoshift-{target}") in (None, "1")
    with team.open_client() as server:
        assert len(server.read_flow_runs(flow_run_filter=FlowRunFilter(), sort=FlowRunSort.ID_DESC, limit=10)) == 3
