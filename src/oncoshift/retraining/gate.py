"""Step `gate`: challenger against control and champion on the audit set; promotes, or says why not.

The registered models themselves are asked, on the raw bytes of the tiles: what is judged is what would be served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from oncoshift.data.loading import load_evaluation_tiles
from oncoshift.data.parquet import read_table
from oncoshift.data.raw import read_raw_tiles
from oncoshift.data.tables import LABELS
from oncoshift.errors import RegistryError
from oncoshift.evaluation.intervals import Interval, bootstrap_metrics, paired_difference
from oncoshift.evaluation.metrics import compute_metrics
from oncoshift.evaluation.resampling import TooFewGroupsError
from oncoshift.files import DamagedFileError
from oncoshift.registry.gate import Decision, GateEvidence, Reason, decide
from oncoshift.registry.loading import load_served
from oncoshift.registry.packaging import update_card
from oncoshift.registry.promotion import WITHDRAWN_TAG, promote, record_decision
from oncoshift.retraining.register import BY
from oncoshift.selection.consensus import kappa

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from oncoshift.data.tables import EvaluationTiles
    from oncoshift.evaluation.weighted import MetricName
    from oncoshift.retraining.select import Selection
    from oncoshift.retraining.session import Session
    from oncoshift.training.job import Job, TrainedJob


UNLABELLED_TILES = 1000
"""Challenger and champion are compared on so many unlabelled target tiles at most."""

METRICS: tuple[MetricName, ...] = ("balanced_accuracy", "auroc", "sensitivity")


def gate_step(session: Session, version: str, control: tuple[Job, TrainedJob], selection: Selection) -> Decision:
    """Decide on a version and act on the decision.

    Args:
        session: the retraining.
        version: the challenger.
        control: the source-only job with the challenger's seed.
        selection: the challenger as it was picked, and what is to be thought of it without labels.
    """
    plan, client = session.plan, session.tracker.client
    with session.child("gate") as run:
        decision = _decided(session, run, version) or _decide(session, version, control, selection)
        session.tracker.log_sealed(run, decision.to_dict(), "gate.json")
        record_decision(client, plan.model_name, version, decision)
        update_card(client, plan.model_name, version, {"Gate": decision.to_markdown()})
        for place in (run, session.parent):
            session.tracker.log_text(place, decision.to_markdown(), "gate.md")
            session.tracker.set_tags(place, {"oncoshift.gate": decision.verdict, "oncoshift.version": version})
        if decision.promote:
            promote(client, plan.model_name, version, f"passed the gate of retraining {session.key}", BY)
    return decision


def _decided(session: Session, run: str, version: str) -> Decision | None:
    """The decision of a gate that was killed after it: a second look would compare a new champion with itself."""
    tags = session.tracker.client.get_run(run).data.tags
    if tags.get("oncoshift.version") != version:
        return None
    try:
        return Decision.from_dict(session.tracker.read_sealed(run, "gate.json", "verdict", "reasons"))
    except DamagedFileError as error:
        session.plan.say(f"{error}; the gate decides again")
        return None


def _decide(session: Session, version: str, control: tuple[Job, TrainedJob], selection: Selection) -> Decision:
    plan = session.plan
    withdrawn = session.tracker.client.get_model_version(plan.model_name, version).tags.get(WITHDRAWN_TAG)
    if withdrawn is not None:
        words = f"version {version} was rolled back ({withdrawn}); only a person brings it back"
        return Decision(False, (Reason("not rolled back", False, None, None, words),))
    evidence = _evidence(session, version, control, selection)
    return decide(plan.settings.gate, plan.settings.select, evidence)


def champion_version(session: Session) -> str | None:
    """The version that is champion now, or None."""
    aliases = session.tracker.client.get_registered_model(session.plan.model_name).aliases
    return str(aliases["champion"]) if "champion" in aliases else None


def _evidence(session: Session, version: str, control: tuple[Job, TrainedJob], selection: Selection) -> GateEvidence:
    settings, layout = session.plan.settings, session.plan.layout
    tiles = load_evaluation_tiles(layout, settings.train.variant, ("audit",))
    images = read_raw_tiles(layout, tiles.tile_ids.tolist())
    challenger, champion = _served(session, version, images), champion_version(session)
    table = session.jobs.predict(*control, ("audit",)).set_index("tile_id").loc[tiles.tile_ids.tolist()]

    def gain(other: NDArray[np.float64]) -> Interval:
        return paired_difference(
            tiles.labels,
            challenger,
            other,
            tiles.groups,
            "balanced_accuracy",
            resamples=settings.evaluate.bootstrap,
            confidence=settings.evaluate.confidence,
        )

    gains: tuple[Interval | None, Interval | None] = (None, None)
    levels, too_few = _levels(session, tiles, challenger)
    if not too_few:
        of_champion = None if champion is None else gain(_served(session, champion, images))
        gains = gain(table["probability"].to_numpy()), of_champion
    unlabelled = champion if settings.gate.without_audit == "trust" else None
    return GateEvidence(
        balanced_accuracy=levels["balanced_accuracy"],
        auroc=levels["auroc"],
        sensitivity=levels["sensitivity"],
        gain_over_control=gains[0],
        gain_over_champion=gains[1],
        groups={name: len(np.unique(tiles.groups[tiles.labels == label])) for label, name in enumerate(LABELS)},
        selection=settings.select.validator,
        source_accuracy=selection.source_accuracy,
        verdict=selection.verdict,
        agreement_with_champion=None if unlabelled is None else _agreement(session, version, unlabelled),
        too_few=too_few,
        phantom=settings.ingest.adapter == "phantom",
    )


def _levels(
    session: Session, tiles: EvaluationTiles, probabilities: NDArray[np.float64]
) -> tuple[Mapping[MetricName, Interval], str]:
    """The metrics on the audit set; without intervals, and why, where groups are too few for them."""
    settings = session.plan.settings.evaluate
    try:
        levels = bootstrap_metrics(
            tiles.labels,
            probabilities,
            tiles.groups,
            resamples=settings.bootstrap,
            confidence=settings.confidence,
            names=METRICS,
        )
    except TooFewGroupsError as error:
        points = compute_metrics(tiles.labels, probabilities, tiles.groups).as_dict()
        return {name: Interval(points[name], np.nan, np.nan, settings.confidence, 0) for name in METRICS}, str(error)
    return levels, ""


def _agreement(session: Session, version: str, champion: str) -> float:
    """Kappa of two versions on unlabelled tiles of the target, evenly spaced over its training split."""
    layout = session.plan.layout
    ids = read_table(layout.splits / "target_train.parquet", ("tile_id",), stage="split")["tile_id"].tolist()
    images = read_raw_tiles(layout, ids[:: -(-len(ids) // UNLABELLED_TILES)])
    return kappa(_served(session, version, images), _served(session, champion, images))


def _served(session: Session, version: str, images: list[bytes]) -> NDArray[np.float64]:
    """Probabilities of a registered version for raw image bytes, float64 [N].

    Raises:
        RegistryError: the model cannot be loaded, or cannot read a tile.
    """
    name = session.plan.model_name
    model = load_served(f"models:/{name}/{version}", session.plan.uri)
    outcome = cast("pd.DataFrame", model.predict(pd.DataFrame({"image": images})))
    if outcome["error"].notna().any():
        raise RegistryError(f"{name} version {version} cannot read an audit tile: {outcome['error'].dropna().iloc[0]}")
    probabilities: NDArray[np.float64] = outcome["probability"].to_numpy(np.float64)
    return probabilities
