"""After SIGKILL or SIGTERM in any step, the next run resumes, and nothing is lost or duplicated."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from oncoshift.registry.changes import INTENT_TAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.conftest import Project

MODEL = "oncoshift-kidney"


def checkpoints(project: Project, method: str, epochs: int) -> list[Path]:
    """List the checkpoints of a method's jobs that have this total number of epochs."""
    found = project.root.glob(f"runs/jobs/{method}-*/checkpoint.pt")
    return [path for path in found if f'"epochs": {epochs}' in (path.parent / "job.json").read_text()]


def stop_by_sigterm(project: Project, send: Callable[[int, signal.Signals], None]) -> None:
    """Start `oncoshift retrain`, and stop it during the method's first seed.

    Args:
        project: The project.
        send: Sends the signal, either to the process alone or to its group.
    """
    process = project.start("retrain", "--params", str(project.root / "params.yaml"), module="oncoshift.cli")
    project.wait_until(process, lambda: "dann seed 0: epoch" in project.log.read_text(), "the method's training")
    children = psutil.Process(process.pid).children(recursive=True)
    send(process.pid, signal.SIGTERM)
    assert process.wait(timeout=120) == 75, project.log.read_text()[-4000:]
    # The signal comes within a step, or while an epoch's figures are logged.
    assert re.search(r"stopped: (training was asked to end, at epoch|asked to stop)", project.log.read_text())
    assert "Traceback" not in project.log.read_text()
    assert psutil.wait_procs(children, timeout=30)[1] == [], "no process is left behind"
    experiment = project.client.get_experiment_by_name("oncoshift").experiment_id
    statuses = {run.info.run_name: run.info.status for run in project.client.search_runs([experiment])}
    assert statuses["dann · seed 0"] == "KILLED"
    assert {status for name, status in statuses.items() if name.startswith("kidney ←")} == {"KILLED"}
    assert "FAILED" not in statuses.values()


@pytest.mark.parametrize(
    "often", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["killed twice", "more often, and stopped"]
)
def test_killed_and_stopped_and_nothing_is_doubled(
    project: Project, monkeypatch: pytest.MonkeyPatch, often: bool
) -> None:
    # `oncoshift retrain` starts the flow in the project's folder, where the flow's code is not.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    project.change(train={"epochs": 5}, tune={"epochs": 4}, retrain={"seeds": 1})

    project.run_until(lambda: bool(checkpoints(project, "dann", 4)), "a trial's first epoch")
    (killed,) = checkpoints(project, "dann", 4)
    if often:
        project.run_until(lambda: bool(checkpoints(project, "erm", 5)), "the control's first epoch")
        assert not killed.exists(), "the killed trial was finished by the second run"
        stop_by_sigterm(project, os.kill)
        stop_by_sigterm(project, os.killpg)
    models = project.root / "mlruns" / "artifacts"
    project.run_until(
        lambda: any(models.glob("models/*/*")) or any(models.glob("*/models/*/*")), "a model's first file"
    )
    assert not killed.exists(), "the killed trial was finished"
    output = project.run()
    assert f"champion of {MODEL}: version 1" in output

    client = project.client
    experiment = client.get_experiment_by_name("oncoshift").experiment_id
    runs = client.search_runs([experiment])
    keys = Counter(run.data.tags["oncoshift.key"] for run in runs)
    assert set(keys.values()) == {1}, "no run is doubled"
    assert {run.info.status for run in runs} == {"FINISHED"}, "none is left hanging"
    names = Counter(run.info.run_name for run in runs)
    trials = sorted(name for name in names if name.startswith("trial-"))
    assert trials == ["trial-0", "trial-1"], "the retry went on in the killed trial's run"
    for run in runs:
        if " · seed " in run.info.run_name and " ← " not in run.info.run_name:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/source_accuracy")]
            assert sorted(steps) == [0, 1, 2, 3, 4], f"{run.info.run_name} has each epoch once"
    (version,) = client.search_model_versions(f"name = '{MODEL}'")
    models_logged = client.search_logged_models([experiment])
    assert [model.status for model in models_logged] == ["READY"]
    registered = client.get_registered_model(MODEL)
    assert {alias: str(number) for alias, number in registered.aliases.items()} == {"champion": str(version.version)}
    assert INTENT_TAG not in registered.tags
    assert not list(project.root.glob("runs/jobs/*/checkpoint.pt"))
