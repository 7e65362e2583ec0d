"""Step `register`: make the picked model a version of the registered model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.data.loading import load_training_data
from oncoshift.data.packs.pack import Pack
from oncoshift.evaluation.weighted import METRIC_NAMES
from oncoshift.methods.factory import member_settings
from oncoshift.registry.card import CardFacts, judgement, model_card
from oncoshift.registry.folder import Package
from oncoshift.registry.packaging import log_and_register, update_card
from oncoshift.registry.promotion import set_challenger
from oncoshift.serving.predictor import ServedConfig
from oncoshift.versioning import stage_outs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.evaluation.domains import Report
    from oncoshift.retraining.select import Selection
    from oncoshift.retraining.session import Session

BY = "retraining"


def register_step(session: Session, selection: Selection, report: Report, seeds: Sequence[int]) -> str:
    """Register the picked model and make it challenger.

    Args:
        session: the retraining.
        selection: the picked job, and what is to be thought of it.
        report: the method's report over all seeds, for the model card.
        seeds: the seeds behind it.

    Returns:
        The version; the same one however often the same job is registered.
    """
    with session.child("register") as run:
        name, facts = session.plan.model_name, _facts(session, selection, report, seeds)
        version = log_and_register(
            session.tracker,
            run,
            f"{selection.job.id}{session.plan.forced}",
            _package(session, selection, model_card(facts)),
            tags={"oncoshift.job": selection.job.id, "oncoshift.retraining": session.parent},
        )
        number = str(version.version)
        # Not with the version: the same model may be picked again by other rules, and judged on other tiles.
        update_card(session.tracker.client, name, number, judgement(facts))
        for key, value in selection.tags.items():
            session.tracker.client.set_model_version_tag(name, number, key, value)
        set_challenger(session.tracker.client, name, number, f"retraining {session.key}", BY)
        session.tracker.set_tags(run, {"oncoshift.version": number})
    return number


def _package(session: Session, selection: Selection, card: str) -> Package:
    settings = selection.job.settings
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
        members=len(member_settings(settings)),
        variant=settings.train.variant,
        reference=pack.stain.reference,
    )
    source = load_training_data(layout, settings.train.variant, settings.sources).source
    examples = [source.images[row] for row in source.rows[:2]]
    return Package(config, selection.trained.state(), card, examples)


def _facts(session: Session, selection: Selection, report: Report, seeds: Sequence[int]) -> CardFacts:
    settings, layout = selection.job.settings, session.plan.layout
    target = report.organ(settings.target)
    return CardFacts(
        name=session.plan.model_name,
        target=settings.target,
        sources=settings.sources,
        method=settings.train.method,
        backbone=settings.model.backbone,
        variant=settings.train.variant,
        tile_size=settings.normalize.tile_size,
        selection=selection.how,
        verdict=selection.verdict,
        seed=settings.seed,
        seeds=tuple(seeds),
        data=stage_outs(layout.folder),
        figures={name: target.in_words(name, settings.seed) for name in METRIC_NAMES},
        means={name: target.in_words(name) for name in METRIC_NAMES},
        split="test",
        phantom=settings.ingest.adapter == "phantom",
    )
