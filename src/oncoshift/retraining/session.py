"""The session that all steps of a retraining share: its plan, its jobs and its MLflow run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from oncoshift.anchors.values import identify_anchor
from oncoshift.data.loading import TRAINING_SPLITS
from oncoshift.data.normalize import SHEET
from oncoshift.data.parquet import read_table
from oncoshift.experiments import EXPERIMENT_TAG
from oncoshift.files import sha256_file
from oncoshift.fingerprint import fingerprint_code, fingerprint_value, fingerprint_weights
from oncoshift.labels.table import USES, locate_labels, read_labels, select_labels
from oncoshift.layout import SPLITS
from oncoshift.methods.registry import METHODS
from oncoshift.registry.history import find_champion, find_model
from oncoshift.registry.source import read_git_tags
from oncoshift.registry.tracking import Tracker
from oncoshift.registry.views import save_views
from oncoshift.retraining.naming import list_retraining_parameters, name_retraining
from oncoshift.settings import replace_values
from oncoshift.settings.training import RUNTIME_SETTINGS
from oncoshift.steps.recorder import RunRecorder
from oncoshift.user import find_user_name
from oncoshift.versioning import hash_file, read_stage_outs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mlflow import MlflowClient

    from oncoshift.layout import Layout
    from oncoshift.selection.choice import Choice
    from oncoshift.settings import Settings
    from oncoshift.steps.jobs import ExperimentJobs

    Say = Callable[[str], None]

BEFORE_TAG = "oncoshift.champion_before"
"""Tag of a retraining's run with the version that was champion when it began, or none."""


@dataclass(frozen=True)
class RetrainingPlan:
    """The plan of a retraining: project, experiment and settings.

    Attributes:
        project: the project's root.
        layout: the experiment's folder.
        settings: the experiment's settings.
        uri: MLflow's tracking and registry URI.
        forced: empty, or the time stamp that distinguishes a forced retraining from all earlier
            ones.
        say: receives lines of progress.
    """

    project: Path
    layout: Layout
    settings: Settings
    uri: str
    forced: str
    say: Say


@dataclass(frozen=True)
class Session:
    """A retraining in progress.

    Attributes:
        plan: of the retraining.
        jobs: makes training jobs on the present data.
        recorder: of its run, whose key is the hash of everything that the retraining depends on.
        choice: of method and stain variant; None before, and where `retrain.methods` is empty.
    """

    plan: RetrainingPlan
    jobs: ExperimentJobs
    recorder: RunRecorder
    choice: Choice | None = None

    @property
    def settings(self) -> Settings:
        """Settings of the experiment, with the chosen method and variant, and organs left out."""
        if self.choice is None:
            return self.plan.settings
        chosen = {
            "train.method": self.choice.method,
            "train.variant": self.choice.variant,
            "retrain.left_out": list(self.choice.chosen.without),
        }
        return replace_values(self.plan.settings, chosen | {"retrain.methods": [], "retrain.variants": []})

    def on_variant(self, variant: str) -> Session:
        """Return the session with jobs on a stain variant."""
        return replace(self, jobs=self.jobs.on_variant(variant))

    def adopt(self, choice: Choice) -> Session:
        """Return the session that goes on with the chosen method and stain variant."""
        return replace(self.on_variant(choice.variant), choice=choice)

    @property
    def key(self) -> str:
        """Hash of everything that the retraining depends on."""
        return self.recorder.key

    def say(self, line: str) -> None:
        """Report a line of progress."""
        self.plan.say(line)

    def log_inputs(self, recorder: RunRecorder, names: Sequence[str]) -> None:
        """Log the splits `names` and the pack as inputs of a run, by their DVC hashes."""
        layout, variant, tracker = self.plan.layout, self.jobs.variant, recorder.tracker
        outs = read_stage_outs(layout.folder)
        for name in names:
            path = layout.splits / f"{name}.parquet"
            tiles = read_table(path, ("tile_id", "organ", "group"), stage="split")
            tracker.log_input(
                recorder.run,
                name,
                digest=hash_file(path),
                source=str(path.relative_to(self.plan.project)),
                context={"source_val": "validation", "audit": "audit", "test": "test"}.get(name, "training"),
                profile={"tiles": len(tiles), "groups": int(tiles["group"].nunique())},
                tags={"organs": ",".join(sorted(tiles["organ"].unique()))},
            )
        tracker.log_input(
            recorder.run,
            f"packs ({variant})",
            digest=outs.get("data/packs", self.jobs.pack_digest),
            source=str((layout.packs / variant).relative_to(self.plan.project)),
            context="training",
        )

    def log_labels(self, recorder: RunRecorder) -> None:
        """Log the target's labels, if any were applied, as an input of a run that reads them."""
        layout, target = self.plan.layout, self.settings.target
        path = locate_labels(layout.labels, target)
        table = read_labels(layout.labels, target)
        if table.empty:
            return
        recorder.tracker.log_input(
            recorder.run,
            "labels",
            digest=hash_file(path),
            source=str(path.relative_to(self.plan.project)),
            context="training",
            profile={"tiles": len(table), "groups": int(table["group"].nunique())},
            tags={use: str(len(select_labels(table, use))) for use in USES},
        )


def open_session(plan: RetrainingPlan, jobs: ExperimentJobs) -> Session:
    """Start the parent run, or find the one of a killed process."""
    settings = plan.settings
    key = compute_retraining_key(plan, jobs)
    tracker = Tracker(plan.uri, settings.tracking.experiment, tags=read_git_tags(plan.project))
    parent = tracker.find_or_start_run(
        key,
        name_retraining(settings),
        tags={
            "oncoshift.step": "retrain",
            "mlflow.source.name": "flows/retrain.py",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": find_user_name(),
            "oncoshift.target": settings.target,
            "oncoshift.sources": ",".join(settings.sources),
            "oncoshift.made_up_data": str(settings.ingest.adapter == "phantom").lower(),
            **({} if plan.layout.folder == plan.project else {EXPERIMENT_TAG: plan.layout.folder.name}),
        },
    )
    save_views(tracker.client, tracker.experiment_id)
    return Session(plan, jobs, RunRecorder(tracker, parent, key))


def log_start(session: Session) -> None:
    """Log parameters and data of the parent run, and reports about the tiles below `data/`."""
    layout, settings, recorder = session.plan.layout, session.settings, session.recorder
    client = recorder.tracker.client
    tags = client.get_run(recorder.run).data.tags
    recorder.log_params(list_retraining_parameters(settings, session.jobs.data_digest, tags))
    if BEFORE_TAG not in tags:  # a resumed retraining may have moved the champion itself
        recorder.set_tags({BEFORE_TAG: _find_present_champion(client, settings.registered_model) or "none"})
    session.log_inputs(recorder, SPLITS)
    for variant in settings.candidate_variants:
        if variant != session.jobs.variant:
            session.on_variant(variant).log_inputs(recorder, ())
    if reads_labels(settings):
        session.log_labels(recorder)
    recorder.tracker.log_folder(recorder.run, layout.tiles / "report", "data")
    sheet = layout.packs / SHEET
    if sheet.is_file():
        recorder.tracker.log_file(recorder.run, sheet, "data")


def _find_present_champion(client: MlflowClient, name: str) -> str | None:
    """Find the champion; None also before the first retraining, when there is no model."""
    return None if find_model(client, name) is None else find_champion(client, name)


def reads_labels(settings: Settings) -> bool:
    """Whether training or gate reads the labels of `oncoshift label`."""
    return METHODS[settings.train.method].reads_labels or settings.gate.without_audit == "few_labels"


def compute_retraining_key(plan: RetrainingPlan, jobs: ExperimentJobs) -> str:
    """Hash settings, data (audit and test too) and code; an equal key means nothing to retrain."""
    who_tunes = {"workers", "storage", "heartbeat_seconds"}
    how_it_runs: dict[str, Any] = {
        "train": set(RUNTIME_SETTINGS), "tune": who_tunes, "watch": True, "paper": True, "tracking": True
    }  # fmt: skip
    settings = plan.settings.model_dump(mode="json", exclude=how_it_runs)
    held_out = [sha256_file(plan.layout.splits / f"{name}.parquet") for name in SPLITS if name not in TRAINING_SPLITS]
    settings["model"]["weights"] = fingerprint_weights(plan.settings.model.weights)
    settings["anchor"] = identify_anchor(plan.settings.anchor)
    variants = *plan.settings.candidate_variants, *plan.settings.select.variants
    packs = [jobs.on_variant(name).data_digest for name in dict.fromkeys(variants)]
    parts: list[Any] = [settings, packs, held_out, fingerprint_code("oncoshift.retraining"), plan.forced]
    if reads_labels(plan.settings):
        parts.append([jobs.load_labels(plan.settings.target, use).content for use in USES])
    return f"retrain-{plan.settings.target}-{fingerprint_value(parts)}"
