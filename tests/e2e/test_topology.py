"""What compose.yaml starts, as processes: PostgreSQL, S3, MLflow with log-in, Prefect, workers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import optuna
import pytest
import torch
from e2e.conftest import REPOSITORY, Project
from prefect import get_client
from support.topology import Tracking, create_database, running_prefect, running_tracking

from oncoshift.cli import main
from oncoshift.registry.folder import Package
from oncoshift.registry.packaging import log_and_register
from oncoshift.registry.promotion import promote
from oncoshift.registry.store import open_client
from oncoshift.registry.tracking import Tracker
from oncoshift.serving.classifier import TileClassifier
from oncoshift.serving.config import ServedConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from optuna.trial import FrozenTrial

POOL = "process"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    with running_tracking(tmp_path_factory.mktemp("servers")) as made:
        yield made


@pytest.fixture
def logged_in(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    for name, value in tracking.environment.items():
        monkeypatch.setenv(name, value)
    return tracking


def make_package() -> Package:
    torch.manual_seed(0)
    state = TileClassifier("resnet18", 16, 0.5).state_dict()
    config = ServedConfig("oncoshift-liver", "liver", ("lung",), "resnet18", 16, 0.5, tile_size=32)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return Package(config, state, "# card", list(tiles))


def test_a_version_is_registered_promoted_and_pulled_through_the_server_alone(
    logged_in: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(logged_in.uri, "tests")
    run = tracker.find_or_start_run("liver", "liver")
    tracker.log_text(run, "evidence", "report.html")
    version = log_and_register(tracker, run, "oncoshift-liver", make_package())
    promote(tracker.client, "oncoshift-liver", version.version, "good", "anna")
    monkeypatch.chdir(REPOSITORY)
    pulled = tmp_path / "pulled"
    assert main(["pull", "--model", "models:/oncoshift-liver@champion", "--dest", str(pulled)]) == 0
    assert (pulled / "model" / "artifacts" / "weights.safetensors").is_file()
    kept = [Path(key).name for key in logged_in.list_objects()]
    assert {"report.html", "weights.safetensors"} <= set(kept), "artifacts are in the S3 store"
    assert "X-Amz-Signature" not in logged_in.log.read_text(), "a client asked the S3 store itself"


def test_a_wrong_password_is_one_line(
    logged_in: Tracking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another-password")
    assert main(["models"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert "401" in said
    assert "MLFLOW_TRACKING_PASSWORD" in said


@dataclass(frozen=True)
class Machine:
    """A machine with a worker: a project of its own, which meets others in the servers alone.

    Attributes:
        root: The project's folder.
        environment: Addresses of the servers and their passwords.
    """

    root: Path
    environment: Mapping[str, str]

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a Python module in a process group of its own."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=REPOSITORY,
                env=os.environ | self.environment | {"ONCOSHIFT_PROJECT": str(self.root), "CUDA_VISIBLE_DEVICES": ""},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def tune(self) -> subprocess.Popen[bytes]:
        return self.start("oncoshift.cli", "tune", "--params", str(self.root / "params.yaml"))

    def work(self) -> subprocess.Popen[bytes]:
        return self.start("prefect", "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1")

    @property
    def log(self) -> Path:
        return self.root / "machine.log"

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@pytest.fixture(scope="module")
def studies(tracking: Tracking) -> str:
    """URL of the database of studies."""
    return create_database(tracking.database, "studies")


@pytest.fixture(scope="module")
def machines(
    tracking: Tracking, studies: str, with_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Machine]]:
    """Two machines on the servers, and a work pool from which both take runs of the flow."""
    folder = tmp_path_factory.mktemp("machines")
    with running_prefect(tracking.database, tracking.log.parent) as api:
        shared = {**tracking.environment, "PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "2"}
        made = []
        for name in ("one", "two"):
            root = Path(shutil.copytree(with_data, folder / name, symlinks=True))
            Project(root).change(
                tune={"storage": studies, "trials": 3, "epochs": 6},
                train={"steps_per_epoch": 8},
            )
            made.append(Machine(root, {**shared, "PREFECT_HOME": str(root / ".prefect")}))
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in made[0].environment.items():
                patch.setenv(variable, value)
            run_prefect("work-pool", "create", "--type", "process", POOL)
            run_prefect("global-concurrency-limit", "create", "gpu", "--limit", "2")
            deploy = ["deploy", "flows/retrain.py:retrain", "--name", "any", "--pool", POOL]
            run_prefect("--no-prompt", *deploy)
            yield made


def run_prefect(*arguments: str) -> str:
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it started, as when its machine loses power."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(reached: Callable[[], object], machines: Sequence[Machine], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "\n".join(machine.said for machine in machines)
        time.sleep(0.2)


def list_trials(database: str) -> list[FrozenTrial]:
    storage = optuna.storages.RDBStorage(database)
    names = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=names[0], storage=storage).trials if names else []


@pytest.mark.slow
def test_two_machines_share_a_study_and_one_finishes_what_a_killed_one_began(
    studies: str, machines: list[Machine]
) -> None:
    def list_workers(state: str = "") -> set[str]:
        found = [trial for trial in list_trials(studies) if state in trial.state.name]
        return {str(trial.user_attrs["worker"]) for trial in found if "worker" in trial.user_attrs}

    first = machines[0].tune()
    wait_until(list_workers, machines)
    second = machines[1].tune()
    wait_until(lambda: len(list_workers("RUNNING")) == 2, machines)
    kill(first)
    assert second.wait(timeout=400) == 0, machines[1].said
    trials = list_trials(studies)
    assert sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials) == 3
    assert (machines[1].root / "runs" / "best.yaml").is_file()


@pytest.mark.slow
def test_two_targets_train_at_once_and_a_killed_worker_costs_its_own_run_alone(
    logged_in: Tracking, machines: list[Machine]
) -> None:
    workers = [machine.work() for machine in machines]
    try:
        targets = {"kidney": ["lung", "colon"], "colon": ["lung", "kidney"]}
        started = {target: start_run(target, sources) for target, sources in targets.items()}
        with get_client(sync_client=True) as client:

            def read_state(target: str) -> str:
                return str(client.read_flow_run(started[target]).state_name)

            wait_until(lambda: {read_state(target) for target in targets} == {"Running"}, machines)
            wait_until(lambda: any(machines[1].root.glob("experiments/custom-*/params.yaml")), machines)
            lost, kept = sorted(
                targets, key=lambda target: not (machines[1].root / f"experiments/custom-{target}").is_dir()
            )
            kill(workers[1])
            wait_until(lambda: read_state(kept) != "Running", machines)
            assert read_state(kept) == "Promoted", machines[0].said
            started[lost] = start_run(lost, targets[lost])
            wait_until(lambda: read_state(lost) not in ("Scheduled", "Pending", "Running"), machines)
            assert read_state(lost) == "Promoted", machines[0].said
        champions = {
            target: open_client(logged_in.uri).get_model_version_by_alias(f"oncoshift-{target}", "champion").version
            for target in targets
        }
        assert champions == {"kidney": "1", "colon": "1"}
    finally:
        for worker in workers:
            kill(worker)


def start_run(target: str, sources: list[str]) -> UUID:
    """Start a run of the flow; return its id."""
    said = run_prefect(
        "deployment", "run", "retrain/any", "--params", json.dumps({"target": target, "sources": sources})
    )
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", said)
    assert found is not None, said
    return UUID(found.group())
