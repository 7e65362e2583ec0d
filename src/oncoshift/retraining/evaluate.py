"""Step `evaluate`: how good the control and the adapted models are, on the sources and on the target's test tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from oncoshift.errors import DataError
from oncoshift.evaluation.domains import Report, by_organ, evaluate_domains
from oncoshift.evaluation.intervals import Interval, paired_difference
from oncoshift.evaluation.plots import comparison_figure, confusion_figure, reliability_figure, roc_figure
from oncoshift.evaluation.resampling import TooFewGroupsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncoshift.retraining.session import Session
    from oncoshift.training.job import Job, TrainedJob

    Trained = Mapping[str, Sequence[tuple[Job, TrainedJob]]]


@dataclass(frozen=True)
class Evaluation:
    """Results by method.

    Attributes:
        reports: method → report over its seeds; source organs on source_val, the target on test.
        gain: balanced accuracy on the target's test tiles, adapted minus control, paired by group and seed; None where
            there are too few groups for an interval.
    """

    reports: dict[str, Report]
    gain: Interval | None


def evaluate_step(session: Session, trained: Trained) -> Evaluation:
    """Predict, score, draw and log, for every method and seed.

    Args:
        session: the retraining.
        trained: method → its seeds' jobs.
    """
    settings = session.plan.settings
    tracker = session.tracker
    with session.child("evaluate") as run:
        tables = {
            method: pd.concat([session.jobs.predict(job, done, ("source_val", "test")) for job, done in jobs])
            for method, jobs in trained.items()
        }
        if settings.target not in set(next(iter(tables.values()))["organ"]):
            raise DataError(
                f"no labelled test tiles of {settings.target}, so nothing can be proved; label tiles of two more "
                "groups of each class, or raise split.test_share"
            )
        reports = {method: evaluate_domains(table, settings.evaluate) for method, table in tables.items()}
        for method, report in reports.items():
            _log_method(session, run, method, tables[method], report)
            _log_seeds(session, trained[method], report)
        gain = _gain(session, tables)
        comparison = comparison_figure(reports)
        for place in (run, session.parent):
            tracker.log_figure(place, comparison, "plots/comparison.png")
        ended = max(done.ended_ms for jobs in trained.values() for _, done in jobs)
        tracker.log_metrics(session.parent, [(0, ended, _headline(settings.target, reports, gain))])
    return Evaluation(reports, gain)


def _log_method(session: Session, run: str, method: str, table: pd.DataFrame, report: Report) -> None:
    tracker = session.tracker
    tracker.log_table(run, table.reset_index(drop=True), f"{method}/predictions.json")
    tracker.log_text(run, report.to_markdown(), f"{method}/report.md")
    tracker.log_json(run, report.to_dict(), f"{method}/report.json")
    tracker.log_figure(run, roc_figure(table), f"{method}/roc.png")
    tracker.log_figure(
        run, reliability_figure(table, session.plan.settings.evaluate.calibration_bins), f"{method}/reliability.png"
    )
    tracker.log_figure(run, confusion_figure(table), f"{method}/confusion.png")


def _log_seeds(session: Session, jobs: Sequence[tuple[Job, TrainedJob]], report: Report) -> None:
    """Each seed's metrics go to its own training run, where the UI compares runs."""
    for job, done in jobs:
        run = session.tracker.find_run(f"{session.key}/train-{job.settings.train.method}-s{job.settings.seed}")
        values: dict[str, Any] = {
            f"{result.organ}/{name}": value
            for result in report.organs
            for name, value in result.per_seed[job.settings.seed].as_dict().items()
            if value is not None
        }
        if run is not None:
            session.tracker.log_metrics(run.info.run_id, [(0, done.ended_ms, values)])


def _gain(session: Session, tables: Mapping[str, pd.DataFrame]) -> Interval | None:
    settings = session.plan.settings
    organ = {
        method: next(tiles for tiles in by_organ(table) if tiles.organ == settings.target)
        for method, table in tables.items()
    }
    adapted, control = organ[settings.train.method], organ[settings.retrain.control]
    try:
        return paired_difference(
            adapted.labels,
            adapted.probabilities,
            control.probabilities,
            adapted.groups,
            "balanced_accuracy",
            resamples=settings.evaluate.bootstrap,
            confidence=settings.evaluate.confidence,
        )
    except TooFewGroupsError as error:
        session.plan.say(f"evaluate: no interval for the gain: {error}")
        return None


def _headline(target: str, reports: Mapping[str, Report], gain: Interval | None) -> dict[str, float]:
    """The parent run's metrics: the target's figures by method, and the gain."""
    values: dict[str, float] = {}
    for method, report in reports.items():
        for name, interval in report.organ(target).intervals.items():
            values[f"{method}/{name}"] = interval.point
            values |= {f"{method}/{name}_low": interval.low, f"{method}/{name}_high": interval.high}
    if gain is not None:
        values |= {"gain/balanced_accuracy": gain.point, "gain/low": gain.low, "gain/high": gain.high}
    return values
