"""Checks for what killed processes left: runs that are RUNNING, and trials without a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.experiments import ExperimentError, hold_experiment
from oncoshift.layout import Layout
from oncoshift.maintenance.contents import list_experiments
from oncoshift.maintenance.databases import exists
from oncoshift.maintenance.findings import Finding
from oncoshift.maintenance.garbage import count_days_since
from oncoshift.maintenance.store_checks import open_store
from oncoshift.registry.embedded import find_database
from oncoshift.registry.processes import PROCESS_TAG, has_ended
from oncoshift.registry.tracking import KEY_TAG
from oncoshift.tuning.orphans import fail_orphans, list_orphans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from oncoshift.maintenance.findings import Scene

_MOST = 1000


def check_runs(scene: Scene) -> Iterator[Finding]:
    """Check that a process works on each run that is RUNNING in MLflow."""
    if (client := open_store(scene)) is None:
        return
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    running = client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=_MOST)
    for run in running:
        if KEY_TAG not in run.data.tags:  # not ours
            continue
        ended = has_ended(run.data.tags.get(PROCESS_TAG, ""))
        if ended is None and find_database(scene.tracking) is not None:
            ended = not _is_busy(scene)
        title = f"run {run.info.run_name!r} ({run.info.run_id[:8]})"
        if ended:
            yield _make_stuck_finding(client, run, title)
        elif ended is None and count_days_since(run.info.start_time) > 1:
            yield Finding(
                "runs", "warning", f"{title} is RUNNING for more than a day, by a process of another machine",
                "look for it there; if it is gone, start the same command again, or end the run in MLflow",
            )  # fmt: skip


def _make_stuck_finding(client: MlflowClient, run: Run, title: str) -> Finding:
    def end() -> None:
        client.set_terminated(run.info.run_id, "KILLED")

    words = f"{title} is RUNNING in MLflow, but its process is gone"
    return Finding("runs", "warning", words, "start the same command again and it goes on; --fix ends the run", end)


def _is_busy(scene: Scene) -> bool:
    """Tell whether a process works in any experiment of the project."""
    for folder in list_experiments(scene.project):
        if (folder / "runs").is_dir():
            try:
                with hold_experiment(Layout(folder)):
                    pass
            except ExperimentError:
                return True
    return False


def check_trials(scene: Scene) -> Iterator[Finding]:
    """Check that each trial that is RUNNING has a worker."""
    if not exists(scene.studies):
        return
    orphans = list_orphans(scene.studies, scene.settings.tune.heartbeat_seconds)
    if orphans:
        names = ", ".join(f"{orphan.number} of {orphan.study}" for orphan in orphans[:3])
        yield Finding(
            "trials", "warning", f"{len(orphans)} trials are RUNNING without a worker: {names}",
            "the next worker of the study runs them again; --fix fails them now, so that they are queued",
            lambda: fail_orphans(scene.studies, orphans),
        )  # fmt: skip
