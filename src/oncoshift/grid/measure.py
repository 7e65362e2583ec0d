"""One row of the grid: train its seeds, predict held-out tiles, and judge without labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import TypeAdapter

from oncoshift.anchors.values import identify_anchor
from oncoshift.data.parquet import read_table
from oncoshift.errors import UntrainableError
from oncoshift.evaluation.domains import evaluate_domains
from oncoshift.files import sha256_file
from oncoshift.fingerprint import fingerprint_code, fingerprint_value
from oncoshift.grid.registry import PROTOCOLS
from oncoshift.grid.rows import is_judged
from oncoshift.selection.choice import Candidate
from oncoshift.selection.registry import VALIDATORS
from oncoshift.steps import choose as choose_step
from oncoshift.steps import select as select_step
from oncoshift.steps.calibration import predict_calibrated
from oncoshift.steps.evaluate import list_figures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncoshift.evaluation.domains import Report
    from oncoshift.grid.rows import Row
    from oncoshift.settings import Settings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import RunRecorder
    from oncoshift.steps.select import Selection
    from oncoshift.training.epoch import Epoch
    from oncoshift.training.job import Job, TrainedJob

STEP = "paper-row"
"""Tag `oncoshift.step` of a row's run."""

PREDICTIONS, FACTS = "predictions", "row.json"
"""Artifacts of a row's run: a table with one row a tile and seed; what is known of the row."""

CANDIDATE: TypeAdapter[Candidate] = TypeAdapter(Candidate)
"""Writes and reads what is known of a judged row without labels."""


@dataclass(frozen=True)
class Measurement:
    """The result of a row.

    Attributes:
        row: the row.
        settings: those that its jobs have.
        seeds: its trained jobs; none if it cannot be trained.
        predictions: of all seeds on source validation and test tiles; see
            `evaluation.domains.PREDICTION_COLUMNS`.
        report: metrics by organ; None if it cannot be trained.
        candidate: what a choice without labels would know of it; None if it is not to be judged.
        failure: why it cannot be trained; empty if it was.
    """

    row: Row
    settings: Settings
    seeds: tuple[TrainedJob, ...] = ()
    predictions: pd.DataFrame | None = None
    report: Report | None = None
    candidate: Candidate | None = None
    failure: str = ""

    def record(self, recorder: RunRecorder) -> None:
        """Save parameters, metrics, predictions and facts in the row's run."""
        row, settings = self.row, self.settings
        recorder.log_params(
            {
                "target": row.pool.target,
                "sources": ", ".join(row.pool.sources),
                "method": row.name,
                "variant": row.variant,
                "protocol": row.protocol,
                "seeds": len(self.seeds),
                "trunk": settings.model.backbone,
                "epochs": settings.train.epochs,
            }
        )
        recorder.set_tags({"oncoshift.protocol": PROTOCOLS[row.protocol].words})
        facts: dict[str, Any] = {"failure": self.failure, "candidate": None}
        if self.report is not None and self.predictions is not None:
            ended = max(trained.ended_ms for trained in self.seeds)
            recorder.log_metrics(list_figures("target", self.report.organ(row.pool.target)), ended)
            recorder.save_table(PREDICTIONS, self.predictions)
            facts |= {
                "report": self.report.to_dict(),
                "jobs": [trained.job.id for trained in self.seeds],
                "scores": {str(trained.job.seed): _list_scores(trained) for trained in self.seeds},
            }
        if self.candidate is not None:
            facts["candidate"] = CANDIDATE.dump_python(self.candidate, mode="json")
            verdict = self.candidate.verdict
            recorder.set_tags({"oncoshift.verdict": "none" if verdict is None else verdict.kind.value})
        if self.failure:
            recorder.set_tags({"oncoshift.failure": self.failure})
        recorder.save_sealed(FACTS, facts)


def identify_row(jobs: ExperimentJobs, row: Row, settings: Settings) -> str:
    """Hash all that a row's result depends on: its jobs, held-out tiles, judgement and code.

    Args:
        jobs: of the row's pool and variant.
        row: the row.
        settings: of the grid, without the row's own.
    """
    own = row.make_settings(settings)
    judged: list[Any] = []
    if is_judged(row):
        judged = [
            own.select.model_dump(mode="json"),
            identify_anchor(own.anchor) if own.select.anchors else None,
            [jobs.on_variant(name).data_digest for name in own.select.variants],
            *([own.retrain.leave_out_below] if row.leaves_out else []),
        ]
    parts = [
        [job.id for job in _make_jobs(jobs, own)],
        [sha256_file(jobs.layout.splits / f"{name}.parquet") for name in ("source_val", "test")],
        own.evaluate.model_dump(mode="json"),
        judged,
        row.title,
        fingerprint_code(__name__),
    ]
    return f"paper-{fingerprint_value(parts)}"


def measure(jobs: ExperimentJobs, row: Row, settings: Settings, say: Callable[[str], None]) -> Measurement:
    """Train a row's seeds, or find them, and measure them on held-out tiles.

    Args:
        jobs: of the row's pool and variant.
        row: the row.
        settings: of the grid, without the row's own.
        say: receives lines of progress.
    """
    own = row.make_settings(settings)
    try:
        seeds = _train(jobs, own)
    except UntrainableError as error:
        say(f"{row.title}: cannot be trained: {error}")
        return Measurement(row, own, failure=str(error))
    candidate = None
    if is_judged(row):
        try:
            selection, without = _judge(jobs, row, settings, say)
            seeds, candidate = tuple(selection.seeds), choose_step.describe(selection, without)
        except UntrainableError as error:  # a model from one organ alone; the row itself is measured
            say(f"{row.title}: cannot be judged: {error}")
            candidate = Candidate(row.method, row.variant, failure=str(error))
    tables = [predict_calibrated(jobs, trained, own.evaluate)[0] for trained in seeds]
    predictions = _restore_groups(jobs, pd.concat(tables, ignore_index=True))
    return Measurement(row, own, seeds, predictions, evaluate_domains(predictions, own.evaluate), candidate)


def _make_jobs(jobs: ExperimentJobs, own: Settings) -> list[Job]:
    return [jobs.make_job(own, seed=own.seed + number) for number in range(own.retrain.seeds)]


def _train(jobs: ExperimentJobs, own: Settings) -> tuple[TrainedJob, ...]:
    return tuple(jobs.train(job, _ignore) for job in _make_jobs(jobs, own))


def _judge(
    jobs: ExperimentJobs, row: Row, settings: Settings, say: Callable[[str], None]
) -> tuple[Selection, Mapping[str, float]]:
    """Judge a row's seeds; where it leaves sources out, train them again without those first."""

    def train_witness(of: ExperimentJobs, job: Job, _title: str) -> TrainedJob:
        return of.train(job, _ignore)

    def screen(without: Mapping[str, float]) -> Selection:
        own = row.make_settings(settings, without)
        selection = select_step.run(jobs, _train(jobs, own), own.select, train_witness, say)
        if without or not row.leaves_out:
            return selection
        found = select_step.find_contradictions(jobs, selection, own.retrain.leave_out_below, train_witness, say)
        return replace(selection, contradictions=found)

    return choose_step.screen_twice(row.title, screen, say)


def _restore_groups(jobs: ExperimentJobs, predictions: pd.DataFrame) -> pd.DataFrame:
    """Name the groups as stage `ingest` does: whatever split the tiles, intervals are over them."""
    tiles = read_table(jobs.layout.tiles / "tiles.parquet", ("tile_id", "group"), stage="ingest")
    groups = tiles.set_index("tile_id")["group"]
    return predictions.assign(group=groups.loc[predictions["tile_id"]].to_numpy())


def _list_scores(trained: TrainedJob) -> dict[str, float]:
    return {name: trained.last[name] for name in (*VALIDATORS, "source_accuracy") if name in trained.last}


def _ignore(_: Epoch) -> None:
    """Do nothing, as the hook of epochs: a row says when it is done."""
