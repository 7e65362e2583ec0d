"""The recipe of a retraining, from data to gate; `Steps` has the steps in their order.

Each step does its work once: see `recorded`. A retraining that was killed is simply started again:
finished steps are found, unfinished ones resume. `flows/retrain.py` passes the steps as Prefect
tasks; nothing here imports Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.experiments import resolve_url
from oncoshift.files import DamagedFileError
from oncoshift.registry.store import open_client
from oncoshift.registry.tracking import Tracker
from oncoshift.registry.waiting import waiting_for
from oncoshift.retraining.approval import refresh_summary
from oncoshift.retraining.prepare import is_data_current, open_jobs, remove_force_stamp
from oncoshift.retraining.session import Session, compute_retraining_key, log_start, open_session
from oncoshift.retraining.summary import REPORT, Outcome, Summary
from oncoshift.steps.recorder import RunRecorder
from oncoshift.tuning.lock import study_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from oncoshift.registry.decision import Decision
    from oncoshift.retraining.session import RetrainingPlan
    from oncoshift.settings import Settings
    from oncoshift.steps.evaluate import Evaluation
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.select import Selection
    from oncoshift.training.job import TrainedJob


@dataclass(frozen=True)
class Steps:
    """The functions of the steps: those of `recorded`, or wrappers around them.

    Attributes:
        data: brings the data up to date.
        choose: returns the session with the method chosen of `retrain.methods`, or as it is.
        tune: returns the settings to train with.
        train: trains seed number n, from 0, of a method.
        evaluate: scores the jobs by method, control and adapted.
        select: picks a seed of the method.
        explain: computes attributions of the pick and of the control of its seed.
        register: registers the pick; returns the version's number.
        gate: decides on a version, compared with the control of the same seed.
    """

    data: Callable[[RetrainingPlan], ExperimentJobs]
    choose: Callable[[Session], Session]
    tune: Callable[[Session], Settings]
    train: Callable[[Session, Settings, str, int], TrainedJob]
    evaluate: Callable[[Session, Mapping[str, Sequence[TrainedJob]]], Evaluation]
    select: Callable[[Session, Sequence[TrainedJob]], Selection]
    explain: Callable[[Session, Selection, TrainedJob], None]
    register: Callable[[Session, Selection, Evaluation], str]
    gate: Callable[[Session, str, TrainedJob, Selection], Decision]


def retrain(plan: RetrainingPlan, steps: Steps) -> Outcome:
    """Follow the recipe, unless nothing has changed since the last time.

    Args:
        plan: of the retraining; the caller holds the lock of its experiment.
        steps: the functions of the steps.
    """
    check_stores(plan)
    with waiting_for(60 * plan.settings.tracking.wait_minutes):
        session = open_session(plan, steps.data(plan))
        outcome = find_previous_outcome(session) or Outcome(_run_steps_or_end_run(session, steps))
    remove_force_stamp(plan)
    return outcome


def check_stores(plan: RetrainingPlan) -> None:
    """Check that MLflow's store and the studies' database answer; from then on they are waited for.

    Raises:
        UnavailableError: one does not.
        RegistryError: MLflow's store cannot be used.
        SettingsError: `tune.storage` cannot be used.
    """
    open_client(plan.uri)
    if plan.settings.tune.trials:
        with study_lock(resolve_url(plan.settings.tune.storage, plan.project)):
            pass


def find_unchanged(plan: RetrainingPlan) -> Outcome | None:
    """Find within seconds whether there is nothing to do; no stage runs, nothing is recorded.

    Args:
        plan: of the retraining; the caller holds the lock of its experiment.

    Returns:
        The outcome of the retraining that this one would repeat; None if there is, or may be,
        something to do.
    """
    if plan.forced or not is_data_current(plan):
        return None
    jobs = open_jobs(plan)
    tracker = Tracker(plan.uri, plan.settings.tracking.experiment)
    key = compute_retraining_key(plan, jobs)
    run = tracker.find_run(key)
    return (
        None if run is None else find_previous_outcome(Session(plan, jobs, RunRecorder(tracker, run.info.run_id, key)))
    )


def find_previous_outcome(session: Session) -> Outcome | None:
    """Find the outcome of a finished retraining with the same key; None if there is none.

    It is also None if the summary is damaged: the steps then find their earlier results and write
    it again.
    """
    recorder = session.recorder
    if not recorder.tracker.is_finished(session.key):
        return None
    try:
        summary = Summary.read(recorder)
    except DamagedFileError as error:
        session.say(f"{error}; it is rebuilt from the results of the steps")
        return None
    client = recorder.tracker.client
    summary = refresh_summary(recorder, summary)
    return Outcome(summary, client.get_run(recorder.run).info.end_time)


def run_steps(session: Session, steps: Steps) -> Summary:
    """Run the steps of an open session, and return its summary."""
    log_start(session)
    session = steps.choose(session)
    control, method = session.settings.retrain.control, session.settings.train.method
    numbers = range(session.settings.retrain.seeds)
    settings = steps.tune(session)
    trained: dict[str, list[TrainedJob]] = {
        name: [steps.train(session, settings, name, number) for number in numbers] for name in (control, method)
    }
    evaluation = steps.evaluate(session, trained)
    selection = steps.select(session, trained[method])
    control_of_pick = next(each for each in trained[control] if each.job.seed == selection.picked.job.seed)
    steps.explain(session, selection, control_of_pick)
    version = steps.register(session, selection, evaluation)
    decision = steps.gate(session, version, control_of_pick, selection)
    return _close(session, evaluation, selection, version, decision)


def _run_steps_or_end_run(session: Session, steps: Steps) -> Summary:
    """Run the steps; an error also ends the retraining's MLflow run."""
    try:
        return run_steps(session, steps)
    except BaseException as error:
        session.recorder.end(error)
        raise


def _close(session: Session, evaluation: Evaluation, selection: Selection, version: str, decision: Decision) -> Summary:
    """Record the summary and end the retraining's run."""
    # Here, as they load torch, which finding that there is nothing to do must not wait for.
    from oncoshift.retraining.report import render_report
    from oncoshift.steps.register import collect_facts

    summary = Summary.from_steps(session, evaluation, selection, version, decision)
    summary.record(session.recorder)
    facts = collect_facts(session.jobs, selection, evaluation.methods[evaluation.method], session.choice)
    session.recorder.save_text(REPORT, render_report(session, summary, evaluation, facts))
    session.recorder.tracker.finish(session.recorder.run)
    return summary
