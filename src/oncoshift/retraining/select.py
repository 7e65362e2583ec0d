"""Step `select`: which seed is the pick, and whether it may be believed, without target labels.

The pick is the seed with the best `select.validator` above the source floor. Whether it may be believed is asked of
models of the same method and seed, each adapted from one labelled organ alone: see `selection.consensus`. They are jobs
as all others are, found when they are done. With a frozen trunk they cost seconds, else a training each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oncoshift.evaluation.agreement import agreement_figure
from oncoshift.retraining.train import train_logged
from oncoshift.selection.consensus import Consensus, consensus, pairwise
from oncoshift.selection.oracle import oracle
from oncoshift.selection.rule import ORACLE, score_row
from oncoshift.selection.verdict import ConsensusVerdict, Evidence, Kind, Verdict, told_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from oncoshift.retraining.session import Session
    from oncoshift.settings import SelectSettings
    from oncoshift.training.job import Job, TrainedJob

NOT_ASKED = Verdict(Kind.DOUBT, ("not asked for (select.verdict is false)",))


@dataclass(frozen=True)
class Selection:
    """What was picked, and what is to be thought of it.

    Attributes:
        job: the picked one.
        trained: its result.
        how: in words, by what it was picked.
        verdict: whether to believe it.
    """

    job: Job
    trained: TrainedJob
    how: str
    verdict: Verdict

    @property
    def source_accuracy(self) -> float:
        """Balanced accuracy of the picked one on source validation tiles, 0 to 1."""
        return self.trained.history[-1]["source_accuracy"]

    @property
    def tags(self) -> dict[str, str]:
        """Of the runs and of the version that come of it."""
        return {
            "oncoshift.selection": self.how,
            "oncoshift.source_accuracy": f"{self.source_accuracy:.4f}",
            "oncoshift.verdict": self.verdict.kind.value,
            "oncoshift.verdict_reasons": "; ".join(self.verdict.reasons),
        }


def select_step(session: Session, jobs: Sequence[tuple[Job, TrainedJob]]) -> Selection:
    """Pick a seed, train the method from each organ alone, compare, and log what comes of it.

    Args:
        session: the retraining.
        jobs: the method's, one a seed; of equal ones the first is picked.
    """
    select = session.plan.settings.select
    with session.child("select") as run:
        scores = [_score(session, job, trained) for job, trained in jobs]
        job, trained = jobs[int(np.argmax(scores))]
        log: dict[str, Any] = {
            "validator": select.validator,
            "scores": {each.settings.seed: score for (each, _), score in zip(jobs, scores, strict=True)},
            "source_accuracies": {each.settings.seed: done.history[-1]["source_accuracy"] for each, done in jobs},
            "source_floor": select.source_floor,
            "picked_seed": job.settings.seed,
        }
        verdict = NOT_ASKED
        if select.verdict:
            pick, alone = session.jobs.predict_target(job, trained), _alone(session, run, job)
            found = consensus(np.stack(alone)) if len(alone) > 1 else None
            verdict = ConsensusVerdict.by(select)(Evidence(trained.history[-1]["source_accuracy"], pick, found))
            if found is not None:
                log |= _log_agreement(session, run, job, found, [*alone, pick])
        selection = Selection(job, trained, _how(select, job, trained, len(jobs)), verdict)
        session.plan.say(f"picked: {selection.how}")
        log |= {"how": selection.how, "verdict": verdict.kind.value, "reasons": list(verdict.reasons)}
        session.plan.say(f"verdict without labels: {verdict.words}")
        session.tracker.log_json(run, log, "selection.json")
        session.tracker.log_metrics(run, [(0, trained.ended_ms, {"score": max(scores)})])
        read_labels = {"oncoshift.oracle": str(select.validator == ORACLE).lower()}
        for place in (run, session.parent):
            session.tracker.set_tags(place, selection.tags | read_labels)
    return selection


def _how(select: SelectSettings, job: Job, trained: TrainedJob, seeds: int) -> str:
    """By what a job was picked; below the floor `score_row` ranks by source accuracy alone."""
    accuracy, floor = trained.history[-1]["source_accuracy"], select.source_floor
    picked = f"seed {job.settings.seed} of {seeds}"
    if accuracy >= floor:
        return f"{picked}, {select.validator} above source accuracy {floor}"
    shown = told_apart(accuracy, floor)
    return f"{picked}, best source accuracy {shown}; no seed reaches the floor {floor} (select.source_floor)"


def _score(session: Session, job: Job, trained: TrainedJob) -> float:
    select, row = session.plan.settings.select, trained.history[-1]
    if select.validator == ORACLE:
        # The audit's labels, so that the test tiles still took part in no decision. The gate refuses what comes of it.
        table = session.jobs.predict(job, trained, ("audit",))
        row = row | {ORACLE: oracle(table["probability"].to_numpy(np.float64), table["label"].to_numpy(np.int64))}
    return score_row(select, row)


def _alone(session: Session, run: str, job: Job) -> list[NDArray[np.float64]]:
    """What models of the pick's method, settings and seed from each organ alone say; nothing where there is one."""
    organs = job.settings.sources
    if len(organs) == 1:
        return []
    method = job.settings.train.method
    session.plan.say(f"select: {len(organs)} trainings of {method}, from {', '.join(organs)} each alone")
    predictions = []
    for organ in organs:
        alone = session.jobs.job(job.settings, sources=[organ], single__organ=None)
        trained = train_logged(session, alone, f"alone-{organ}", f"{method} from {organ} alone", run)
        predictions.append(session.jobs.predict_target(alone, trained))
    return predictions


def _log_agreement(
    session: Session, run: str, job: Job, found: Consensus, predictions: list[NDArray[np.float64]]
) -> dict[str, Any]:
    """Figures and a picture of who agrees with whom; the last of `predictions` is the pick's."""
    organs, target = job.settings.sources, job.settings.target
    names, kappas = [*(f"{organ} alone" for organ in organs), "the pick"], pairwise(np.stack(predictions))
    title = f"agreement on unlabelled {target}\n{job.settings.train.method}, seed {job.settings.seed}"
    figure = agreement_figure(names, kappas, title)
    for place in (run, session.parent):
        session.tracker.log_figure(place, figure, "plots/agreement.png")
    return {
        "models": names,
        "agreement": kappas.round(4).tolist(),
        "majority": [organs[number] for number in found.majority],
        "strength": found.strength,
        "agreement_of_pick": found.agreement_with(predictions[-1]),
    }
