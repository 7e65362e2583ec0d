"""Step `register`: pick a model without target labels, and make it a version of the registered model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.torch import load_file

from oncoshift.data.loading import load_training_data
from oncoshift.data.packs.pack import Pack
from oncoshift.evaluation.intervals import Interval
from oncoshift.registry.card import CardFacts, model_card
from oncoshift.registry.folder import Package
from oncoshift.registry.packaging import log_and_register
from oncoshift.registry.promotion import set_challenger
from oncoshift.selection.rule import SourceFlooredScore
from oncoshift.serving.predictor import ServedConfig
from oncoshift.versioning import stage_outs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.evaluation.report import Report
    from oncoshift.retraining.session import Session
    from oncoshift.training.job import Job, TrainedJob

SELECTION = "information_maximisation above a source floor"
BY = "retraining"


def pick(session: Session, jobs: Sequence[tuple[Job, TrainedJob]]) -> tuple[Job, TrainedJob]:
    """The seed with the best label-free score; the first of equals."""
    rule = SourceFlooredScore(session.plan.settings.select.source_floor)

    def score(entry: tuple[Job, TrainedJob]) -> float:
        last = entry[1].history[-1]
        return rule(last["source_accuracy"], last["information_maximisation"])

    return max(jobs, key=score)


def register_step(session: Session, job: Job, trained: TrainedJob, report: Report, seeds: Sequence[int]) -> str:
    """Register the picked model and make it challenger.

    Args:
        session: the retraining.
        job: the picked job.
        trained: its result.
        report: the method's report over all seeds, for the model card.
        seeds: the seeds behind it.

    Returns:
        The version; the same one however often the same job is registered.
    """
    with session.child("register") as run:
        name = session.plan.model_name
        version = log_and_register(
            session.tracker,
            run,
            f"{job.id}{session.plan.forced}",
            _package(session, job, trained, report, seeds),
            tags={"oncoshift.job": job.id, "oncoshift.retraining": session.parent, "oncoshift.selection": SELECTION},
        )
        number = str(version.version)
        set_challenger(session.tracker.client, name, number, f"retraining {session.key}", BY)
        session.tracker.set_tags(run, {"oncoshift.version": number})
    return number


def _package(session: Session, job: Job, trained: TrainedJob, report: Report, seeds: Sequence[int]) -> Package:
    settings = job.settings
    layout = session.plan.layout
    pack = Pack.open(layout.packs / settings.train.variant)
    config = ServedConfig(
        name=session.plan.model_name,
        target=settings.target,
        sources=settings.sources,
        backbone=settings.model.backbone,
        bottleneck=settings.model.bottleneck,
        dropout=settings.model.dropout,
        tile_size=pack.side,
        variant=settings.train.variant,
        reference=pack.stain.reference,
    )
    target = report.organ(settings.target)
    card = model_card(
        CardFacts(
            name=config.name,
            target=settings.target,
            sources=settings.sources,
            method=settings.train.method,
            backbone=settings.model.backbone,
            variant=settings.train.variant,
            tile_size=pack.side,
            selection=f"seed {settings.seed} of {len(seeds)}, {SELECTION}",
            seeds=tuple(seeds),
            data=stage_outs(layout.folder),
            metrics=dict[str, Interval](target.intervals.items()),
            split="test",
            phantom=settings.ingest.adapter == "phantom",
        )
    )
    source = load_training_data(layout, settings.train.variant, settings.sources).source
    examples = [source.images[row] for row in source.rows[:2]]
    return Package(config, load_file(trained.weights), card, examples)
