"""The steps of a retraining, each done once, in a nested MLflow run that is found by its key.

`recipe` has their order; `oncoshift.steps` does the work.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from oncoshift.console import report_tenths
from oncoshift.data.loading import TRAINING_SPLITS
from oncoshift.files import DamagedFileError
from oncoshift.methods.factory import count_epochs
from oncoshift.methods.registry import METHODS
from oncoshift.registry.promotion import ChampionMovedError
from oncoshift.retraining.naming import (
    SETTINGS,
    list_chosen_parameters,
    list_training_parameters,
    name_retraining,
    name_training,
)
from oncoshift.retraining.workers import run_workers
from oncoshift.selection.choice import leave_out, read_choice
from oncoshift.settings import dump_settings, flatten, replace_values
from oncoshift.steps import choose as choose_step
from oncoshift.steps import cross_organ as cross_organ_step
from oncoshift.steps import evaluate as evaluate_step
from oncoshift.steps import explain as explain_step
from oncoshift.steps import gate as gate_step
from oncoshift.steps import register as register_step
from oncoshift.steps import select as select_step
from oncoshift.steps import shortcuts as shortcuts_step
from oncoshift.steps import train as train_step
from oncoshift.steps import tune as tune_step
from oncoshift.steps.trial import Search
from oncoshift.training.job import find_trained
from oncoshift.tuning.worker import Budget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncoshift.registry.decision import Decision
    from oncoshift.retraining.session import Session
    from oncoshift.selection.choice import Choice
    from oncoshift.settings import Settings, TuneSettings
    from oncoshift.steps.evaluate import Evaluation
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import RunRecorder
    from oncoshift.steps.select import Selection
    from oncoshift.training.epoch import Epoch
    from oncoshift.training.job import Job, TrainedJob

_GATE_ATTEMPTS = 3
"""Times that the gate judges a version while other retrainings change the champion."""

SETTLED_TAG = "oncoshift.tuned"
"""Tag of a retraining's run with the values that tuning changed, by dotted key, as JSON."""


def choose(session: Session) -> Session:
    """Choose one of `retrain.methods` and a variant; return the session that goes on with them.

    A choice that was recorded before a crash stands. Where settings name no methods, the session is
    returned as it is.
    """
    settings = session.settings
    if not settings.retrain.methods:
        return session
    with session.recorder.step("choose") as recorder:
        choice = _find_choice(recorder)
        if choice is None:
            choice = choose_step.run(settings, lambda *given: _screen(session, recorder, *given), session.say)
        name = choose_step.name_candidate(settings, choice.method, choice.variant, choice.chosen.without)
        choose_step.record(recorder, choice, name)
    session.say(f"choose: {choice.words}")
    session = session.adopt(choice)
    left_out = {"left_out": ", ".join(choice.chosen.without)} if choice.chosen.without else {}
    session.recorder.log_params(list_chosen_parameters(session.settings, session.jobs.data_digest) | left_out)
    session.recorder.tracker.client.update_run(session.recorder.run, name=name_retraining(session.settings))
    return session


def _find_choice(recorder: RunRecorder) -> Choice | None:
    try:
        return read_choice(recorder.tracker.read_sealed(recorder.run, choose_step.FILE, "method", "candidates"))
    except (DamagedFileError, ValueError):
        return None


def _screen(session: Session, above: RunRecorder, method: str, variant: str, without: Mapping[str, float]) -> Selection:
    """Train a candidate with few seeds, pick one and judge it, in a run nested under `above`."""
    settings, numbers = session.settings, range(session.settings.retrain.screen_seeds)
    name, on = choose_step.name_candidate(settings, method, variant, without), session.on_variant(variant)
    with above.step(f"candidate-{name}", name) as recorder:

        def train_here(jobs: ExperimentJobs, job: Job, what: str) -> TrainedJob:
            step = f"screen-{name}-{what.replace(' ', '-')}"
            return _train(replace(on, jobs=jobs), recorder, job, step, f"{name} · {what}", f"{name} {what}")

        own = {"train__method": method, "train__variant": variant}
        reduced = leave_out(settings, without)
        jobs = [on.jobs.make_job(reduced, seed=settings.seed + number, **own) for number in numbers]
        seeds = [train_here(on.jobs, job, f"seed {job.seed}") for job in jobs]
        selection = select_step.run(on.jobs, seeds, settings.select, train_here, session.say)
        limit = settings.retrain.leave_out_below
        if not without:
            found = select_step.find_contradictions(on.jobs, selection, limit, train_here, session.say)
            selection = replace(selection, contradictions=found)
        session.say(f"{name}: verdict without labels: {selection.verdict.words}")
        choose_step.record_candidate(recorder, selection, without)
    return selection


def tune(session: Session) -> Settings:
    """Run the study, or the rest of it, and save all settings as the retraining's settings.yaml.

    A retraining that is killed after that resumes with the same values, whatever its study has
    found since, unless another method or variant has been chosen.

    Returns:
        The experiment's settings with the best trial's values.

    Raises:
        SettingsError: see `run_study`.
        TuningError: see `run_study`.
    """
    configured, recorder = session.settings, session.recorder
    chosen = {
        "train.method": configured.train.method,
        "train.variant": configured.train.variant,
        "retrain.left_out": list(configured.retrain.left_out),
    }
    settled = json.loads(recorder.tracker.client.get_run(recorder.run).data.tags.get(SETTLED_TAG, "null"))
    if settled is None or settled != settled | chosen:
        before, tuned = flatten(configured), flatten(run_study(session, configured.tune))
        settled = chosen | {key: value for key, value in tuned.items() if value != before[key]}
        recorder.set_tags({SETTLED_TAG: json.dumps(settled)})
    elif configured.tune.trials:
        session.say("tune: resumes with the values that were chosen before; --force tunes again")
    settings = replace_values(configured, settled)
    recorder.save_text(SETTINGS, dump_settings(settings))
    return settings


def run_study(session: Session, tune: TuneSettings) -> Settings:
    """Run the study, or the rest of it; with `tune.trials` 0, return the settings unchanged.

    Args:
        session: the retraining.
        tune: its section `tune`, possibly changed by the command line.

    Returns:
        The experiment's settings with the best trial's values.

    Raises:
        SettingsError: `tune.parameters`, `tune.storage` or the validator cannot be used.
        TuningError: every worker process ended before all trials were done.
    """
    settings = session.settings
    if tune.trials == 0:
        return settings
    budget = Budget(tune.trials, None if tune.minutes is None else time.time() + 60 * tune.minutes)
    search = Search(settings, tune, session.jobs, session.plan.forced, session.say)
    if not search.first_values:
        session.say(f"tune: {settings.train.method} reads none of tune.parameters; nothing to tune")
        return settings

    def work_in_processes(recorder: RunRecorder, budget: Budget, count: int) -> None:
        run_workers(session, search, recorder.run, budget, count)

    with session.recorder.step("tune") as recorder:
        tuned = tune_step.run(recorder, search, budget, work_in_processes)
        tuned.record(recorder)
    if tuned.best is None:
        session.say("tune: no trial completed; the defaults stand")
    return tuned.settings


def train(session: Session, settings: Settings, method: str, number: int) -> TrainedJob:
    """Train seed `settings.seed + number` of a method, resume it, or return its result if done.

    The control learns from all source organs, whatever was left out: it is what a team has that
    does not adapt.

    Args:
        session: the retraining.
        settings: as tuned.
        method: the control or the method of `train.method`.
        number: from 0 to `retrain.seeds` − 1.
    """
    left_out = () if method == settings.retrain.control else settings.retrain.left_out
    job = session.jobs.make_job(leave_out(settings, left_out), train__method=method, seed=settings.seed + number)
    step, label = f"train-{method}-s{job.seed}", f"{method} seed {job.seed}"
    return _train(session, session.recorder, job, step, name_training(job.settings), label)


def evaluate(session: Session, trained: Mapping[str, Sequence[TrainedJob]]) -> Evaluation:
    """Evaluate the jobs of control and method on sources and target."""
    with session.recorder.step("evaluate") as recorder:
        evaluation = evaluate_step.run(session.jobs, trained, session.settings)
        if evaluation.without_gain:
            session.say(f"evaluate: no interval for the gain: {evaluation.without_gain}")
        evaluation.record(recorder)
        if session.choice is not None:
            # After the choice, since it reads labels of the target.
            table = choose_step.measure(session.jobs, session.choice, session.settings)
            recorder.save_table("candidates_on_test", table)
    return evaluation


def select(session: Session, seeds: Sequence[TrainedJob]) -> Selection:
    """Pick one of the method's seeds, and judge whether it can be trusted."""
    with session.recorder.step("select") as recorder:

        def train_witness(jobs: ExperimentJobs, job: Job, what: str) -> TrainedJob:
            method, step = job.settings.train.method, f"witness-{what.replace(' ', '-')}"
            return _train(replace(session, jobs=jobs), recorder, job, step, f"{method} · {what}", f"{method} {what}")

        found = select_step.run(session.jobs, seeds, session.settings.select, train_witness, session.say)
        selection = replace(found, variant_by_anchor=session.choice is not None and session.choice.by_anchor)
        session.say(f"picked: {selection.description}")
        session.say(f"verdict without labels: {selection.verdict.words}")
        selection.record(recorder)
        # After the pick, since they read labels of the target.
        cross_organ_step.run(session.jobs, selection, session.settings.evaluate).record(recorder)
        shortcuts_step.run(
            session.jobs, session.settings, with_target=True, with_epithelium=False, on_progress=lambda *_: None
        ).record(recorder, "plots/")
    return selection


def explain(session: Session, selection: Selection, control: TrainedJob) -> None:
    """Compute attributions of the pick, and of the control of its seed, on target tiles."""
    with session.recorder.step("explain") as recorder:
        progress = report_tenths("explain: attribution maps", session.say)
        explain_step.run(session.jobs, selection.picked, progress, control).record(recorder)


def register(session: Session, selection: Selection, evaluation: Evaluation) -> str:
    """Register the pick as a version and challenger, and return the version."""
    with session.recorder.step("register") as recorder:
        registration = register_step.run(
            recorder,
            session.jobs,
            selection,
            evaluation.methods[selection.picked.job.settings.train.method],
            choice=session.choice,
            retraining=session.recorder.run,
            forced=session.plan.forced,
        )
        registration.record(recorder)
    return registration.version


def gate(session: Session, version: str, control: TrainedJob, selection: Selection) -> Decision:
    """Compare a version with control and champion; promote it, or state why not."""
    with session.recorder.step("gate") as recorder:
        challenge = gate_step.Challenge(session.settings.registered_model, version, control, selection)
        for attempt in range(1, _GATE_ATTEMPTS + 1):
            judged = gate_step.run(recorder, session.jobs, challenge, session.settings, session.say)
            try:
                judged.record(recorder)
                break
            except ChampionMovedError as error:
                if attempt == _GATE_ATTEMPTS:
                    raise
                session.say(f"gate: {error}; judging again")
    return judged.decision


def _train(session: Session, above: RunRecorder, job: Job, step: str, title: str, label: str) -> TrainedJob:
    """Train a job in a nested run, which records its settings, data, epochs and findings.

    Args:
        session: the retraining.
        above: recorder of the run that it is nested in.
        job: the job to train.
        step: name of the step, part of its run's key.
        title: name of the run.
        label: prefix of each line of progress.
    """
    with above.step(step, title, system_metrics=session.settings.tracking.system_metrics) as recorder:
        if find_trained(job) is not None:
            recorder.set_tags({"oncoshift.reused": "true"})
            session.say(f"{label}: already trained; nothing that it depends on has changed")
        tags = recorder.tracker.client.get_run(recorder.run).data.tags
        recorder.log_params(list_training_parameters(job.settings, session.jobs.data_digest, tags))
        recorder.save_text(SETTINGS, dump_settings(job.settings))
        recorder.set_tags({"oncoshift.job": job.id, "oncoshift.method": job.settings.train.method})
        session.log_inputs(recorder, TRAINING_SPLITS)
        if METHODS[job.settings.train.method].reads_labels:
            session.log_labels(recorder)
        report = train_step.make_epoch_reporter(session.say, label, count_epochs(job.settings))

        def on_epoch(epoch: Epoch) -> None:
            recorder.log_epoch(epoch)
            report(epoch)

        done = train_step.run(session.jobs, job, on_epoch, report_tenths(f"{label}: features of tiles", session.say))
        for finding in done.findings:
            session.say(f"{label}: {finding}")
        done.record(recorder)
    return done.trained
