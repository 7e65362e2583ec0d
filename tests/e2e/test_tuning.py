"""`oncoshift tune` survives a stop and killed processes, and a retraining then finds its study."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import psutil
import pytest
import torch

from oncoshift.settings import flatten, load_settings

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from e2e.conftest import Project
    from mlflow.entities import Run
    from optuna.trial import FrozenTrial

TRIALS, EPOCHS = 3, 6

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def two_seeds(project: Project) -> None:
    searched = ["train.lr", "dann.hidden"]
    project.change(
        tune={"trials": TRIALS, "epochs": EPOCHS, "seeds": 2, "parameters": searched},
        train={"steps_per_epoch": 8},
        retrain={"seeds": 1},
    )


def start(project: Project) -> subprocess.Popen[bytes]:
    arguments = ("tune", "--workers", "2", "--params", str(project.root / "params.yaml"))
    return project.start(*arguments, module="oncoshift.cli")


def wait_until(process: subprocess.Popen[bytes], project: Project, reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not reached():
        assert process.poll() is None, f"ended before: {project.log.read_text()[-4000:]}"
        assert time.monotonic() < deadline, f"never reached: {project.log.read_text()[-4000:]}"
        time.sleep(0.01)


def trials(project: Project) -> list[FrozenTrial]:
    storage = f"sqlite:///{project.root}/runs/optuna.db"
    if not (project.root / "runs" / "optuna.db").is_file():
        return []
    names = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=names[0], storage=storage).trials if names else []


def worker(trial: FrozenTrial) -> int:
    """Return the id of the process that runs, or ran, a trial."""
    return int(trial.user_attrs["worker"].split(":")[1])


def processes(project: Project) -> list[int]:
    """List the ids of all processes that ran trials."""
    return [worker(trial) for trial in trials(project) if "worker" in trial.user_attrs]


def lives(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def checkpoints(project: Project, seed: int) -> list[Path]:
    return list(project.root.glob(f"runs/jobs/dann-s{seed}-*/checkpoint.pt"))


def epochs_behind(checkpoint: Path) -> list[float]:
    """List when a checkpoint's epochs ended; empty if the job has finished in the meantime."""
    try:
        state = torch.load(checkpoint, weights_only=True)
    except FileNotFoundError:
        return []
    return [row["timestamp_ms"] for row in state["position"]["history"]]


def runs(project: Project, prefix: str) -> list[Run]:
    experiment = project.client.get_experiment_by_name("oncoshift").experiment_id
    return [run for run in project.client.search_runs([experiment]) if run.info.run_name.startswith(prefix)]


def test_asked_to_stop_it_stops_its_workers_with_a_checkpoint_each(project: Project) -> None:
    tune = start(project)
    wait_until(tune, project, lambda: checkpoints(project, 0))
    os.kill(tune.pid, signal.SIGTERM)
    assert tune.wait(timeout=120) == 75, project.log.read_text()[-4000:]
    assert [process for process in processes(project) if lives(process)] == []
    assert checkpoints(project, 0)
    assert any("stopped" in trial.user_attrs for trial in trials(project))


def test_its_workers_stop_when_it_is_killed(project: Project) -> None:
    before = set(processes(project))
    tune = start(project)
    wait_until(tune, project, lambda: set(processes(project)) - before)
    tune.kill()
    tune.wait()
    deadline = time.monotonic() + 120
    while any(lives(process) for process in processes(project)):
        assert time.monotonic() < deadline, "a worker without a parent goes on"
        time.sleep(0.1)
    assert sum(trial.state.name == "COMPLETE" for trial in trials(project)) < TRIALS, "they stopped on the way"


def test_a_killed_workers_trial_goes_on_in_the_other_from_its_checkpoint(project: Project) -> None:
    def second_seed() -> tuple[FrozenTrial, Run, Path, list[float]] | None:
        """Find a running trial with an epoch of its second seed; its first seed is then done."""
        for checkpoint in checkpoints(project, 1):
            epochs = epochs_behind(checkpoint)
            for run in runs(project, "trial-") if epochs else ():
                under_way = [trial for trial in trials(project) if trial.state.name == "RUNNING"]
                name = {f"trial-{trial.user_attrs.get('configuration')}": trial for trial in under_way}
                if run.data.tags.get("oncoshift.job.s1") == checkpoint.parent.name and run.info.run_name in name:
                    return name[run.info.run_name], run, checkpoint.parent, epochs
        return None

    tune = start(project)
    wait_until(tune, project, lambda: (found := second_seed()) is not None and lives(worker(found[0])))
    found = second_seed()
    assert found is not None
    killed, run, job, epochs = found
    first = project.root / "runs/jobs" / run.data.tags["oncoshift.job.s0"] / "done.json"
    trained = first.read_bytes()
    os.kill(worker(killed), signal.SIGKILL)
    assert tune.wait(timeout=400) == 0, project.log.read_text()[-4000:]
    assert "was killed by SIGKILL" in project.log.read_text()

    assert first.read_bytes() == trained
    history = json.loads((job / "done.json").read_text())["history"]
    assert [row["timestamp_ms"] for row in history][: len(epochs)] == epochs, "epochs before the kill are not repeated"
    (retry,) = [trial for trial in trials(project) if trial.user_attrs.get("resumes") == killed.number]
    assert retry.params == killed.params
    assert worker(retry) != worker(killed)


def test_each_configuration_counts_once(project: Project) -> None:
    complete = [trial for trial in trials(project) if trial.state.name in ("COMPLETE", "PRUNED")]
    assert sorted(trial.user_attrs["configuration"] for trial in complete) == list(range(TRIALS))
    assert len({str(trial.params) for trial in complete}) == TRIALS
    assert [path for seed in range(2) for path in checkpoints(project, seed)] == [], "nobody goes on with these"
    found = runs(project, "trial-")
    assert sorted(run.info.run_name for run in found) == ["trial-0", "trial-1", "trial-2"]
    assert {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        scores = project.client.get_metric_history(run.info.run_id, "train/score")
        assert sorted(point.step for point in scores) == list(range(2 * EPOCHS)), "epochs of two seeds, each once"
        seeds = [
            point.value for point in sorted(scores, key=lambda point: point.step) if point.step % EPOCHS == EPOCHS - 1
        ]
        assert run.data.metrics["score/mean"] == pytest.approx(sum(seeds) / 2)
        assert run.data.metrics["score/worst"] == min(seeds)


def test_pictures_report_and_preset_are_in_both_runs(project: Project) -> None:
    (tune,), (parent,) = runs(project, "tune"), runs(project, "kidney ←")
    assert parent.info.status == "SCHEDULED", "the rest of the retraining is still to come"
    names = ("best.yaml", "history.png", "importances.png", "parallel_coordinates.png", "report.md", "slice.png")
    for run in (tune, parent):
        found = {artifact.path for artifact in project.client.list_artifacts(run.info.run_id, "tuning")}
        assert found == {f"tuning/{name}" for name in names}


def test_the_preset_gives_the_best_values_and_says_where_they_are_from(project: Project) -> None:
    path = project.root / "runs" / "best.yaml"
    best = max((trial for trial in trials(project) if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)
    params = project.root / "params.yaml"
    wanted = flatten(load_settings(params)) | best.params | {"tune.trials": 0}
    assert flatten(load_settings(params, preset=str(path))) == wanted
    comment = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    for said in (f"Trial {best.user_attrs['configuration']} of study kidney-dann-", "mean of 2 seeds",
                 "the worst", "information_maximisation", "Data ", "code "):  # fmt: skip
        assert said in comment


def test_a_retraining_finds_the_study_and_goes_on_from_there(project: Project, prefect_server: str) -> None:
    project.prefect = prefect_server
    before = len(trials(project))
    project.run()
    assert len(trials(project)) == before
    (parent,) = runs(project, "kidney ←")
    assert parent.info.status == "FINISHED"
    best = max((trial for trial in trials(project) if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)
    (trained,) = runs(project, "dann · seed")
    for run in (trained, parent):
        settings = load_settings(Path(project.client.download_artifacts(run.info.run_id, "settings.yaml")))
        assert settings.train.lr == best.params["train.lr"]
