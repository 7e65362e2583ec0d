"""Two retrainings on two machines share one study in PostgreSQL: no trial is lost or doubled.

The machines are processes with a project folder each, so they share neither jobs nor checkpoints.
The retrainings differ in the number of their final seeds, which no trial depends on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import optuna
import pytest
from e2e.conftest import Project
from mlflow import MlflowClient
from support.ports import find_free_port
from support.postgresql import making_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from optuna.trial import FrozenTrial

pytestmark = pytest.mark.slow

TRIALS, PATIENCE_SECONDS = 8, 900


@dataclass
class Team:
    """Two machines, an MLflow server and the database of their study."""

    machines: tuple[Project, Project]
    uri: str
    storage: str

    def list_trials(self) -> list[FrozenTrial]:
        """List the trials of the study; there is one study at most."""
        try:
            names = optuna.get_all_study_names(self.storage)
        except Exception:  # whatever the database says while the first process makes its tables
            return []
        assert len(names) <= 1, "both retrainings have the same study"
        return optuna.load_study(study_name=names[0], storage=self.storage).trials if names else []

    def count_begun(self, process: subprocess.Popen[bytes]) -> int:
        """Count the trials that a process has begun."""
        return sum(trial.user_attrs.get("worker", "").endswith(f":{process.pid}") for trial in self.list_trials())

    def wait_until(self, process: subprocess.Popen[bytes], reached: Callable[[], bool], what: str) -> None:
        """Wait for a condition, while a process runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            said = [each.log.read_text()[-3000:] for each in self.machines if each.log.exists()]
            assert process.poll() is None, f"ended before {what}: {said}"
            assert time.monotonic() < deadline, f"never reached: {what}: {said}"
            time.sleep(0.2)


@pytest.fixture
def team(tmp_path: Path, with_data: Path) -> Iterator[Team]:
    with ExitStack() as stack:
        storage = stack.enter_context(making_database())
        port = find_free_port()
        uri = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
        command += ["--artifacts-destination", str(tmp_path / "artifacts")]
        log = stack.enter_context((tmp_path / "mlflow.log").open("w"))
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        stack.callback(server.wait)
        stack.callback(os.killpg, server.pid, signal.SIGKILL)
        machines = []
        for number, name in enumerate(("first", "second"), start=1):
            machine = Project(shutil.copytree(with_data, tmp_path / name, symlinks=True))
            machine.change(
                tracking={"uri": uri},
                train={"steps_per_epoch": 6},
                tune={"trials": TRIALS, "epochs": 6, "storage": storage, "parameters": ["train.lr", "dann.hidden"]},
                retrain={"seeds": number},
            )
            machines.append(machine)
        made = Team((machines[0], machines[1]), uri, storage)
        made.wait_until(server, lambda: is_healthy(uri), "an MLflow server")
        yield made


def is_healthy(uri: str) -> bool:
    """Tell whether an MLflow server answers."""
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:  # noqa: S310 - of this machine
            return bool(answer.status == 200)
    except OSError:
        return False


def tune(machine: Project) -> subprocess.Popen[bytes]:
    return machine.start("tune", "--params", str(machine.root / "params.yaml"), module="oncoshift.cli")


def test_what_a_suspended_and_a_killed_machine_leave_of_a_shared_study_the_other_does(team: Team) -> None:
    first, second = team.machines
    processes = [tune(first)]
    try:
        team.wait_until(processes[0], lambda: team.count_begun(processes[0]) > 0, "a trial of the first")
        os.killpg(processes[0].pid, signal.SIGSTOP)  # as a machine that sleeps; the second takes its trial
        processes.append(tune(second))
        team.wait_until(processes[1], lambda: team.count_begun(processes[1]) > 1, "two trials of the second")
        os.killpg(processes[1].pid, signal.SIGKILL)
        processes[1].wait()
        os.killpg(processes[0].pid, signal.SIGCONT)
        assert processes[0].wait(timeout=PATIENCE_SECONDS) == 0, first.log.read_text()[-4000:]
        again = tune(second)
        processes.append(again)
        assert again.wait(timeout=PATIENCE_SECONDS) == 0, second.log.read_text()[-4000:]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    trials = team.list_trials()
    ended = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert sorted(trial.user_attrs["configuration"] for trial in ended) == list(range(TRIALS)), "each counts once"
    assert len({str(trial.params) for trial in ended}) == TRIALS, "and is another one"
    lost = [trial for trial in trials if trial.state.name not in ("COMPLETE", "PRUNED")]
    resumed = {trial.user_attrs.get("resumes") for trial in ended}
    assert {trial.number for trial in lost} <= resumed, "what either was at was run again"
    assert lost, "at least one was"
    workers = {trial.user_attrs["worker"] for trial in ended}
    assert len(workers) == 2, "both machines have ended trials"

    best = [machine.root.joinpath("runs", "best.yaml").read_text() for machine in team.machines]
    assert best[0] == best[1], "both retrainings go on from the same values"
    client = MlflowClient(team.uri, team.uri)
    experiment = client.get_experiment_by_name("oncoshift")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    steps = Counter(run.data.tags["oncoshift.step"] for run in runs)
    assert steps["retrain"] == steps["tune"] == 2, "each retraining has its own runs"
    names = Counter(run.info.run_name for run in runs if run.data.tags["oncoshift.step"] == "trial")
    assert set(names) == {f"trial-{number}" for number in range(TRIALS)}
    assert sum(names.values()) - TRIALS <= len(lost), "a trial is a run of the retraining that ran it"
