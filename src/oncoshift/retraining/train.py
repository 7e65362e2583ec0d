"""Step `train`: one method with one seed, as a nested run; and what every training that is logged has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.console import tenths
from oncoshift.data.loading import TRAINING_SPLITS
from oncoshift.markdown import escape
from oncoshift.settings import flatten
from oncoshift.training.diagnostics import findings
from oncoshift.training.job import find_trained

if TYPE_CHECKING:
    from oncoshift.retraining.session import Session
    from oncoshift.settings import Settings
    from oncoshift.training.job import Job, TrainedJob


def train_step(session: Session, settings: Settings, method: str, number: int) -> tuple[Job, TrainedJob]:
    """Train seed `settings.seed + number` of a method, go on with it, or take its result if it is done.

    Args:
        session: the retraining.
        settings: as tuned.
        method: the control or the method of `train.method`.
        number: from 0 to `retrain.seeds` − 1.
    """
    job = session.jobs.job(settings, train__method=method, seed=settings.seed + number)
    label = f"{method} seed {job.settings.seed}"
    return job, train_logged(session, job, f"train-{method}-s{job.settings.seed}", label)


def train_logged(session: Session, job: Job, step: str, label: str, parent: str | None = None) -> TrainedJob:
    """Train a job as a nested run, with its settings, data, epochs, and what its figures show to have gone wrong.

    Args:
        session: the retraining.
        job: what to train.
        step: names the run.
        label: before each line of progress.
        parent: id of the run above it; default: the retraining's.
    """
    with session.child(step, parent=parent, system_metrics=True) as run:
        if find_trained(job) is not None:
            session.tracker.set_tags(run, {"oncoshift.reused": "true"})
            session.plan.say(f"{label}: trained before, nothing that it depends on has changed")
        session.tracker.log_params(run, flatten(job.settings))
        session.tracker.set_tags(run, {"oncoshift.job": job.id, "oncoshift.method": job.settings.train.method})
        session.log_inputs(run, TRAINING_SPLITS)
        trained = session.jobs.train(
            job,
            session.epoch_logger(run, label, job.settings.train.epochs),
            tenths(f"{label}: features of tiles", session.plan.say),
        )
        found = findings(trained.history, job.settings)
        for finding in found:
            session.plan.say(f"{label}: {finding}")
        if found:
            note = "\n".join(f"- {escape(finding)}" for finding in found)
            session.tracker.set_tags(run, {"oncoshift.findings": "; ".join(found), "mlflow.note.content": note})
    return trained
