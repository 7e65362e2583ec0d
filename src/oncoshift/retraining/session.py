"""What all steps of one retraining share: its plan, its jobs, and its runs in MLflow."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oncoshift.data.loading import TRAINING_SPLITS
from oncoshift.data.normalize import SHEET
from oncoshift.data.parquet import read_table
from oncoshift.epochs import epoch_lines
from oncoshift.errors import TrainingInterrupted
from oncoshift.files import DamagedFileError, sha256_file
from oncoshift.fingerprint import code_fingerprint, value_fingerprint, weights_fingerprint
from oncoshift.layout import SPLITS
from oncoshift.registry.source import git_tags
from oncoshift.registry.tracking import Tracker
from oncoshift.secrets import without_credentials
from oncoshift.settings import flatten
from oncoshift.training.interruption import swallowed_stop
from oncoshift.training.job import HOW_IT_RUNS
from oncoshift.tuning.space import tunable
from oncoshift.user import user_name
from oncoshift.versioning import file_hash, stage_outs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from oncoshift.experiment_jobs import ExperimentJobs
    from oncoshift.layout import Layout
    from oncoshift.settings import Settings
    from oncoshift.training.loop import EpochHook

    Say = Callable[[str], None]

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Plan:
    """What is to be retrained, and where.

    Attributes:
        project: the project's root.
        layout: the experiment's folder.
        settings: the experiment's settings.
        uri: MLflow's tracking and registry URI.
        forced: empty, or the time stamp that makes a forced retraining differ from all before.
        say: takes lines of progress for people.
    """

    project: Path
    layout: Layout
    settings: Settings
    uri: str
    forced: str
    say: Say

    @property
    def model_name(self) -> str:
        """Name of the registered model."""
        return self.settings.registered_model


@dataclass(frozen=True)
class Session:
    """A retraining that is under way.

    Attributes:
        plan: what is retrained.
        jobs: makes training jobs on the present data.
        tracker: the MLflow store.
        key: hash of all that the retraining depends on; the key of its parent run.
        parent: id of the parent run.
    """

    plan: Plan
    jobs: ExperimentJobs
    tracker: Tracker
    key: str
    parent: str

    @contextmanager
    def child(self, step: str, parent: str | None = None, system_metrics: bool = False) -> Iterator[str]:
        """A nested run for one step; it ends FINISHED, or as `end` says."""
        run = self.tracker.find_or_start_run(
            f"{self.key}/{step}", step, parent=parent or self.parent, tags={"oncoshift.step": step.split("-")[0]}
        )
        try:
            if system_metrics and self.plan.settings.tracking.system_metrics:
                with self.tracker.system_metrics(run):
                    yield run
            else:
                yield run
        except BaseException as error:
            stop = swallowed_stop(error)
            self.end(run, stop or error)
            if stop is not None and stop is not error:
                raise stop from error
            raise
        self.tracker.finish(run)

    def end(self, run: str, error: BaseException) -> None:
        """End a run that an error left: KILLED where somebody stopped it, else FAILED with the error as a tag."""
        if isinstance(error, TrainingInterrupted) or not isinstance(error, Exception):
            self.tracker.abandon(run, "KILLED", {})
        else:
            text = without_credentials(f"{type(error).__name__}: {error}")
            self.tracker.abandon(run, "FAILED", {"oncoshift.error": text[:4000]})

    def epoch_logger(self, run: str, label: str, epochs: int) -> EpochHook:
        """A hook that logs each epoch's figures with the time at which they were made, so twice is the same as once.

        Those that were trained before the hook was made are logged as well, and told as `epoch_lines` does.
        """
        tell = epoch_lines(self.plan.say, label, epochs)

        def log(row: dict[str, float]) -> None:
            figures = {name: value for name, value in row.items() if name not in ("epoch", "timestamp_ms")}
            self.tracker.log_metrics(run, [(int(row["epoch"]), int(row["timestamp_ms"]), figures)])
            tell(row)

        return log

    def log_inputs(self, run: str, names: Sequence[str]) -> None:
        """The data that a run reads: some splits and the pack, by the hashes that DVC knows them by."""
        layout, variant = self.plan.layout, self.plan.settings.train.variant
        outs = stage_outs(layout.folder)
        for name in names:
            path = layout.splits / f"{name}.parquet"
            tiles = read_table(path, ("tile_id", "organ", "group"), stage="split")
            self.tracker.log_input(
                run,
                name,
                digest=file_hash(path),
                source=str(path.relative_to(self.plan.project)),
                context={"source_val": "validation", "audit": "audit", "test": "test"}.get(name, "training"),
                profile={"tiles": len(tiles), "groups": int(tiles["group"].nunique())},
                tags={"organs": ",".join(sorted(tiles["organ"].unique()))},
            )
        self.tracker.log_input(
            run,
            f"packs ({variant})",
            digest=outs.get("data/packs", self.jobs.pack_digest),
            source=str((layout.packs / variant).relative_to(self.plan.project)),
            context="training",
        )


def open_session(plan: Plan, jobs: ExperimentJobs) -> Session:
    """Start the parent run, or find the one that a killed process left."""
    settings = plan.settings
    key = retraining_key(plan, jobs)
    tracker = Tracker(plan.uri, settings.tracking.experiment, tags=git_tags(plan.project))
    parent = tracker.find_or_start_run(
        key,
        f"retrain-{settings.target}-{time.strftime('%Y%m%d-%H%M%S')}",
        tags={
            "oncoshift.step": "retrain",
            "mlflow.source.name": "flows/retrain.py",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": user_name(),
            "oncoshift.target": settings.target,
            "oncoshift.sources": ",".join(settings.sources),
            "oncoshift.made_up_data": str(settings.ingest.adapter == "phantom").lower(),
        },
    )
    return Session(plan, jobs, tracker, key, parent)


def log_start(session: Session) -> None:
    """Parameters and data of the parent run, and what shows the tiles as artifacts below `data/`.

    MLflow's parameters never change, so those that tuning may change are left to `tune.tune_step`.
    """
    layout, settings = session.plan.layout, session.plan.settings
    open_keys = tunable() if settings.tune.trials else {}
    known = {key: value for key, value in flatten(settings).items() if key not in open_keys}
    session.tracker.log_params(session.parent, known)
    session.log_inputs(session.parent, SPLITS)
    session.tracker.log_folder(session.parent, layout.tiles / "report", "data")
    sheet = layout.packs / SHEET
    if sheet.is_file():
        session.tracker.log_file(session.parent, sheet, "data")


def retraining_key(plan: Plan, jobs: ExperimentJobs) -> str:
    """Hash of settings, data (audit and test too) and code: while it stays, there is nothing to retrain."""
    who_tunes = {"workers", "storage", "heartbeat_seconds"}
    how_it_runs: dict[str, Any] = {"train": set(HOW_IT_RUNS), "tune": who_tunes, "tracking": True}
    settings = plan.settings.model_dump(mode="json", exclude=how_it_runs)
    held_out = [sha256_file(plan.layout.splits / f"{name}.parquet") for name in SPLITS if name not in TRAINING_SPLITS]
    settings["model"]["weights"] = weights_fingerprint(plan.settings.model.weights)
    parts = [settings, jobs.data_digest, held_out, code_fingerprint("oncoshift.retraining"), plan.forced]
    return f"retrain-{plan.settings.target}-{value_fingerprint(parts)}"


def finished_summary(session: Session) -> dict[str, Any] | None:
    """What a retraining with the same key ended with, or None where there is none that ended.

    None as well where its summary is damaged: the steps then find what they did before, and write it anew.
    """
    if not session.tracker.is_finished(session.key):
        return None
    try:
        return session.tracker.read_sealed(session.parent, SUMMARY, "version", "gate", "champion")
    except DamagedFileError as error:
        session.plan.say(f"{error}; the steps are looked through again, and it is written anew")
        return None
