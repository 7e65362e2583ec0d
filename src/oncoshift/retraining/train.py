"""Step `train`: one method with one seed, as a nested run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.console import tenths
from oncoshift.data.loading import TRAINING_SPLITS
from oncoshift.settings import flatten
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
    with session.child(f"train-{method}-s{job.settings.seed}", system_metrics=True) as run:
        if find_trained(job) is not None:
            session.tracker.set_tags(run, {"oncoshift.reused": "true"})
            session.plan.say(f"{label}: trained before, nothing that it depends on has changed")
        session.tracker.log_params(run, flatten(job.settings))
        session.tracker.set_tags(run, {"oncoshift.job": job.id, "oncoshift.method": method})
        session.log_inputs(run, TRAINING_SPLITS)
        trained = session.jobs.train(
            job,
            session.epoch_logger(run, label, job.settings.train.epochs),
            tenths(f"{label}: features of tiles", session.plan.say),
        )
    return job, trained
