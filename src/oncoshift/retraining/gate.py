"""Step `gate`: challenger against control and champion on the audit set; promotes, or says why not.

The registered models themselves are asked, on the raw bytes of the tiles: what is judged is what would be served.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
from mlflow.artifacts import download_artifacts

from oncoshift.data.loading import load_evaluation_tiles
from oncoshift.data.raw import read_raw_tiles
from oncoshift.data.tables import LABELS
from oncoshift.errors import RegistryError
from oncoshift.evaluation.intervals import Interval, bootstrap_metrics, paired_difference
from oncoshift.evaluation.resampling import TooFewGroupsError
from oncoshift.registry.gate import Decision, GateEvidence, Reason, decide
from oncoshift.registry.promotion import WITHDRAWN_TAG, promote, record_decision
from oncoshift.retraining.register import BY, SELECTION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.data.tables import EvaluationTiles
    from oncoshift.retraining.session import Session
    from oncoshift.training.job import Job, TrainedJob


def gate_step(session: Session, version: str, control: tuple[Job, TrainedJob]) -> Decision:
    """Decide on a version and act on the decision.

    Args:
        session: the retraining.
        version: the challenger.
        control: the source-only job with the challenger's seed.
    """
    plan, client = session.plan, session.tracker.client
    with session.child("gate") as run:
        decision = _decided(session, run, version) or _decide(session, version, control)
        session.tracker.log_json(run, decision.to_dict(), "gate.json")
        record_decision(client, plan.model_name, version, decision)
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
    path = Path(session.tracker.client.download_artifacts(run, "gate.json"))
    return Decision.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _decide(session: Session, version: str, control: tuple[Job, TrainedJob]) -> Decision:
    plan = session.plan
    withdrawn = session.tracker.client.get_model_version(plan.model_name, version).tags.get(WITHDRAWN_TAG)
    if withdrawn is not None:
        words = f"version {version} was rolled back ({withdrawn}); only a person brings it back"
        return Decision(False, (Reason("not rolled back", False, None, None, words),))
    tiles = load_evaluation_tiles(plan.layout, plan.settings.train.variant, ("audit",))
    try:
        return decide(plan.settings.gate, _evidence(session, tiles, version, control))
    except TooFewGroupsError as error:
        return Decision(False, (Reason("audit groups per class", False, None, None, str(error)),))


def champion_version(session: Session) -> str | None:
    """The version that is champion now, or None."""
    aliases = session.tracker.client.get_registered_model(session.plan.model_name).aliases
    return str(aliases["champion"]) if "champion" in aliases else None


def _evidence(session: Session, tiles: EvaluationTiles, version: str, control: tuple[Job, TrainedJob]) -> GateEvidence:
    settings = session.plan.settings
    images = read_raw_tiles(session.plan.layout, tiles.tile_ids.tolist())
    challenger = _served(session, version, images)
    champion = champion_version(session)
    table = session.jobs.predict(*control, ("audit",)).set_index("tile_id").loc[tiles.tile_ids.tolist()]
    levels = bootstrap_metrics(
        tiles.labels,
        challenger,
        tiles.groups,
        resamples=settings.evaluate.bootstrap,
        confidence=settings.evaluate.confidence,
        names=("balanced_accuracy", "auroc", "sensitivity"),
    )

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

    return GateEvidence(
        balanced_accuracy=levels["balanced_accuracy"],
        auroc=levels["auroc"],
        sensitivity=levels["sensitivity"],
        gain_over_control=gain(table["probability"].to_numpy()),
        gain_over_champion=None if champion is None else gain(_served(session, champion, images)),
        groups={name: len(np.unique(tiles.groups[tiles.labels == label])) for label, name in enumerate(LABELS)},
        selection=SELECTION,
        phantom=settings.ingest.adapter == "phantom",
    )


def _served(session: Session, version: str, images: list[bytes]) -> NDArray[np.float64]:
    """Probabilities of a registered version for raw image bytes, float64 [N].

    Raises:
        RegistryError: the model cannot read a tile.
    """
    name = session.plan.model_name
    source = session.tracker.client.get_model_version_download_uri(name, version)
    model = mlflow.pyfunc.load_model(download_artifacts(artifact_uri=source, tracking_uri=session.plan.uri))
    outcome = model.predict(pd.DataFrame({"image": images}))
    if outcome["error"].notna().any():
        raise RegistryError(f"{name} version {version} cannot read an audit tile: {outcome['error'].dropna().iloc[0]}")
    probabilities: NDArray[np.float64] = outcome["probability"].to_numpy(np.float64)
    return probabilities
