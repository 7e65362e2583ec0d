"""Step `register`: register the picked model as a new version and make it challenger."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.data.packs.pack import Pack
from oncoshift.data.packs.scale import read_scale
from oncoshift.data.parquet import read_table
from oncoshift.data.validation.checks import get_limits
from oncoshift.evaluation.weighted import METRIC_NAMES
from oncoshift.methods.factory import list_member_settings
from oncoshift.registry.artifacts import TrainingTiles
from oncoshift.registry.card import CardFacts, render_card, render_judgement, render_summary
from oncoshift.registry.folder import Package
from oncoshift.registry.history import RETRAINING_TAG
from oncoshift.registry.packaging import describe_model, log_and_register, update_card
from oncoshift.registry.promotion import set_challenger
from oncoshift.serving.config import ServedConfig
from oncoshift.serving.tissue import Measurements
from oncoshift.versioning import read_stage_outs

if TYPE_CHECKING:
    from oncoshift.evaluation.operating import Calibration
    from oncoshift.selection.choice import Choice
    from oncoshift.steps.evaluate import EvaluatedMethod
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import Recorder, RunRecorder
    from oncoshift.steps.select import Selection

SHIFT_TILES = 1000
"""Training tiles from which a served model measures shift, at most; half are of the target."""

ACTOR = "retraining"
"""The actor that the history of an alias names for changes by this program."""


@dataclass(frozen=True)
class Registration:
    """The picked model in the registry.

    Attributes:
        version: its number; the same if the same job is registered again.
    """

    version: str

    def record(self, recorder: Recorder) -> None:
        """Save the version's number."""
        recorder.set_tags({"oncoshift.version": self.version})


def run(
    recorder: RunRecorder,
    jobs: ExperimentJobs,
    selection: Selection,
    method: EvaluatedMethod,
    *,
    choice: Choice | None,
    retraining: str,
    forced: str,
) -> Registration:
    """Register the picked model and make it challenger.

    Args:
        recorder: the step's run, in whose store the registry is.
        jobs: of the experiment.
        selection: the picked job and the verdict on it.
        method: performance of all seeds, for the model card.
        choice: how the method was chosen; None if it was given.
        retraining: id of the retraining's run.
        forced: see `retraining.session.RetrainingPlan`.
    """
    client, job = recorder.tracker.client, selection.picked.job
    name, facts = job.settings.registered_model, collect_facts(jobs, selection, method, choice)
    calibration = method.calibrations[job.seed]
    version = log_and_register(
        recorder.tracker,
        retraining,
        # The same weights with another temperature or threshold are another model.
        f"{job.id}{forced}/{calibration.temperature:g}/{calibration.threshold:g}",
        _build_package(jobs, selection, calibration, render_card(facts)),
        tags={"oncoshift.job": job.id, RETRAINING_TAG: retraining},
    )
    number = str(version.version)
    # After registration: the same model may be picked again by other rules, and judged on other
    # tiles.
    update_card(client, name, number, render_judgement(facts))
    for key, value in (selection.tags | _list_tags(facts)).items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(name, number, key, value)
    describe_model(client, name, render_summary(facts), {"target": facts.target, "sources": ", ".join(facts.sources)})
    set_challenger(client, name, number, f"retraining {recorder.key}", ACTOR)
    return Registration(number)


def _build_package(jobs: ExperimentJobs, selection: Selection, calibration: Calibration, card: str) -> Package:
    settings = selection.picked.job.settings
    pack = Pack.open(jobs.layout.packs / settings.train.variant)
    config = ServedConfig(
        name=settings.registered_model,
        target=settings.target,
        sources=settings.sources,
        backbone=settings.model.backbone,
        bottleneck=settings.model.bottleneck,
        dropout=settings.model.dropout,
        pooling=settings.model.pooling,
        tile_size=pack.side,
        members=len(list_member_settings(settings)),
        variant=settings.train.variant,
        reference=pack.stain.reference,
        um_per_pixel=read_scale(jobs.layout.packs),
        limits=get_limits(settings.ingest),
        temperature=calibration.temperature,
        threshold=calibration.threshold,
    )
    source = jobs.load_training_data().source
    examples = [source.images[row] for row in source.rows[:2]]
    return Package(config, selection.picked.state(), card, examples, _load_training_tiles(jobs, pack, selection))


def _load_training_tiles(jobs: ExperimentJobs, pack: Pack, selection: Selection) -> TrainingTiles:
    """Load evenly spaced training tiles, with which the served model and `watch` compare others.

    Tiles of organs that were left out are none.
    """
    splits = [
        read_table(jobs.layout.splits / f"{name}.parquet", ("tile_id", "organ", "group"), stage="split")
        for name in ("source_train", "target_train")
    ]
    splits = [split[~split["organ"].isin(selection.left_out)] for split in splits]
    tiles = pd.concat([split.iloc[:: -(-len(split) // (SHIFT_TILES // 2))] for split in splits])
    ids = tiles["tile_id"].tolist()
    columns = ("tile_id", *(field.name for field in fields(Measurements)))
    measured = read_table(jobs.layout.tiles / "measurements.parquet", columns, stage="ingest")
    return TrainingTiles(
        pack.images[pack.rows(ids)],
        tiles["organ"].to_numpy(np.str_),
        tiles["group"].to_numpy(np.str_),
        measured.drop_duplicates("tile_id").set_index("tile_id").loc[ids],
    )


def collect_facts(
    jobs: ExperimentJobs, selection: Selection, method: EvaluatedMethod, choice: Choice | None
) -> CardFacts:
    """Collect the values of which the model card and the retraining's report are made."""
    settings = selection.picked.job.settings
    target = method.report.organ(settings.target)
    return CardFacts(
        name=settings.registered_model,
        target=settings.target,
        sources=settings.sources,
        method=settings.train.method,
        backbone=settings.model.backbone,
        variant=settings.train.variant,
        tile_size=settings.normalize.tile_size,
        selection=selection.description,
        verdict=selection.verdict,
        seed=settings.seed,
        seeds=tuple(trained.job.seed for trained in method.seeds),
        data=read_stage_outs(jobs.layout.folder),
        figures={metric: target.in_words(metric, settings.seed) for metric in METRIC_NAMES},
        means={metric: target.in_words(metric) for metric in METRIC_NAMES},
        split="test",
        phantom=settings.ingest.adapter == "phantom",
        choice=choice,
        anchor=selection.anchor,
        target_labels=selection.target_labels,
    )


def _list_tags(facts: CardFacts) -> dict[str, str]:
    """List tags that tell a model's versions apart in the registry's table."""
    return {
        "method": facts.method,
        "trunk": facts.backbone,
        "variant": facts.variant,
        "seed": str(facts.seed),
        "sources": ", ".join(facts.sources),
        "balanced_accuracy": f"{facts.figures['balanced_accuracy']} on {facts.target}",
        **({"oncoshift.choice": facts.choice.words} if facts.choice else {}),
    }
