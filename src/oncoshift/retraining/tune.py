"""Step `tune`: the study, one nested run a trial, and the settings that it found."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import optuna

from oncoshift.console import tenths
from oncoshift.experiments import absolute_database
from oncoshift.fingerprint import code_fingerprint, value_fingerprint, weights_fingerprint
from oncoshift.methods.factory import method_settings
from oncoshift.selection.rule import SourceFlooredScore
from oncoshift.settings import flatten, with_values
from oncoshift.tuning.plots import study_figure
from oncoshift.tuning.study import TrialPlan, TuningResult, tune

if TYPE_CHECKING:
    from oncoshift.retraining.session import Session
    from oncoshift.settings import Settings


def tune_step(session: Session) -> Settings:
    """Run the study, or what is left of it; without trials, the settings as they are.

    Returns:
        The experiment's settings with the best trial's values.
    """
    settings = session.plan.settings
    if settings.tune.trials == 0:
        return settings
    read = _parameters(session)
    with session.child("tune") as run:
        name = _study_name(session)
        result = tune(
            settings.tune.model_copy(update={"parameters": read}),
            storage=absolute_database(settings.tune.storage, session.plan.layout.folder),
            study_name=name,
            defaults={key: flatten(settings)[key] for key in read},
            run_trial=lambda plan: _run_trial(session, run, plan),
        )
        _log(session, run, name, result)
    if not result.values:
        session.plan.say("tune: no trial completed; the defaults stand")
    return with_values(settings, dict(result.values))


def _parameters(session: Session) -> tuple[str, ...]:
    """The tunable settings that the method reads; a search over others would be a search over nothing."""
    settings = session.plan.settings
    sections = {"model", "train", *method_settings(settings)}
    unread = [key for key in settings.tune.parameters if key.split(".")[0] not in sections]
    if unread:
        session.plan.say(f"tune: {settings.train.method} does not read {', '.join(unread)}; left out")
    return tuple(key for key in settings.tune.parameters if key not in unread)


def _run_trial(session: Session, tune_run: str, plan: TrialPlan) -> float:
    settings = session.plan.settings
    job = session.jobs.job(with_values(settings, {**plan.values, "train.epochs": settings.tune.epochs}))
    score = SourceFlooredScore(settings.select.source_floor)
    hopeless: optuna.TrialPruned | None = None
    last = 0.0
    with session.child(f"trial-{plan.number}", parent=tune_run) as run:
        session.tracker.log_params(run, plan.values)
        session.tracker.set_tags(run, {"oncoshift.job": job.id})
        log = session.epoch_logger(run, f"trial {plan.number}", settings.tune.epochs)

        def on_epoch(row: dict[str, float]) -> None:
            nonlocal last
            log(row)
            last = score(row["source_accuracy"], row["information_maximisation"])
            session.tracker.log_metrics(run, [(int(row["epoch"]), int(row["timestamp_ms"]), {"score": last})])
            plan.report(int(row["epoch"]), last)

        try:
            session.jobs.train(job, on_epoch, tenths(f"trial {plan.number}: features of tiles", session.plan.say))
        except optuna.TrialPruned as pruned:
            session.tracker.set_tags(run, {"oncoshift.pruned": "true"})
            hopeless = pruned
    if hopeless is not None:
        raise hopeless
    return last


def _log(session: Session, run: str, name: str, result: TuningResult) -> None:
    tracker = session.tracker
    tracker.set_tags(run, {"oncoshift.study": name, "oncoshift.best_trial": result.number})
    tracker.log_params(run, {f"best.{key}": value for key, value in result.values.items()})
    if result.score is not None:
        tracker.log_metrics(run, [(0, _ended(result), {"best_score": result.score})])
    tracker.log_table(run, result.trials.astype(str), "trials.json")
    tracker.log_figure(run, study_figure(result.trials), "plots/study.png")


def _ended(result: TuningResult) -> int:
    """When the last trial began, milliseconds: a time that is the same however often this is logged."""
    starts = result.trials["datetime_start"].dropna()
    return int(starts.max().timestamp() * 1000) if len(starts) else int(time.time() * 1000)


def _study_name(session: Session) -> str:
    """Names all that the scores depend on, so that a study never mixes what cannot be compared."""
    settings = session.plan.settings
    sections = settings.model_dump(mode="json", include={"seed", "model", "train", "tune"}) | method_settings(settings)
    sections["tune"].pop("trials")
    sections["model"]["weights"] = weights_fingerprint(settings.model.weights)
    parts = [sections, session.jobs.data_digest, code_fingerprint(), session.plan.forced]
    return f"{settings.target}-{settings.train.method}-{value_fingerprint(parts)}"
