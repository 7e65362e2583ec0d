"""The run in MLflow with the totals of scored tiles, for watching a model over time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from oncoshift.fingerprint import fingerprint_value
from oncoshift.registry.tracking import Tracker

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.scoring.output import Scores, Totals

EXPERIMENT = "{experiment} scores"
"""Beside the experiment of retrainings, whose table of runs would otherwise mix two kinds."""


def record_scores(uri: str, experiment: str, scores: Scores, source: Path, totals: Totals) -> str:
    """Log the totals of an output as a run, one for each output; return the run's id.

    Args:
        uri: of the tracking store.
        experiment: name of the experiment of retrainings.
        scores: the output.
        source: the input.
        totals: of all parts.
    """
    tracker, model = Tracker(uri, EXPERIMENT.format(experiment=experiment)), scores.model
    named = f"{model.name} version {model.version}" if model.version else model.name
    run = tracker.find_or_start_run(
        fingerprint_value([model._asdict(), str(scores.folder.resolve()), scores.started]),
        f"{named} · {source.name}",
        tags={"oncoshift.kind": "scores"},
    )
    tracker.log_params(run, {**model._asdict(), "input": source.resolve(), "scores": scores.folder.resolve()})
    tracker.log_metrics(run, [(totals.tiles, round(time.time() * 1000), compute_metrics(totals))])
    tracker.finish(run)
    return run


def compute_metrics(totals: Totals) -> dict[str, float]:
    """Compute the metrics of a run: shares of labels among labelled tiles, other shares of all."""
    labelled = totals.malignant + totals.benign
    metrics = {
        "scored/tiles": float(totals.tiles),
        "scored/abstain_share": totals.abstained / max(totals.tiles, 1),
        "scored/error_share": totals.errors / max(totals.tiles, 1),
    }
    if labelled:
        metrics["scored/malignant_share"] = totals.malignant / labelled
        metrics["scored/benign_share"] = totals.benign / labelled
    for name, value in (("shift_median", totals.shift_median), ("shift_p90", totals.shift_high)):
        if value is not None:
            metrics[f"scored/{name}"] = value
    return metrics
