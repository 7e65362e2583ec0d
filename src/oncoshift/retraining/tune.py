"""Step `tune`: the study, one nested run a trial, and the settings that it found."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_GIT_DIRTY

from oncoshift.files import atomic
from oncoshift.fingerprint import code_fingerprint
from oncoshift.registry.source import git_tags
from oncoshift.retraining.trial import Search
from oncoshift.retraining.workers import run_workers
from oncoshift.selection.rule import reaches_floor
from oncoshift.settings import flatten, load_settings, with_values
from oncoshift.tuning.plots import Study, history_figure, importances_figure, parallel_figure, slice_figure
from oncoshift.tuning.preset import preset_text
from oncoshift.tuning.tables import shown, to_markdown
from oncoshift.tuning.worker import Budget

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.layout import Layout
    from oncoshift.retraining.session import Session
    from oncoshift.settings import Settings, TuneSettings
    from oncoshift.tuning.study import Trial


SETTLED_TAG = "oncoshift.tuned"
"""On a retraining's parent run: the values that tuning changed, by dotted key, as JSON."""


def tune_step(session: Session) -> Settings:
    """Settle what the retraining trains: run the study, or what is left of it, and log the best as its parameters.

    A retraining that was killed after that goes on with the same values, whatever its study has found since.

    Returns:
        The experiment's settings with the best trial's values.

    Raises:
        SettingsError: see `run_study`.
        TuningError: see `run_study`.
    """
    configured, tracker = session.plan.settings, session.tracker
    settled = tracker.client.get_run(session.parent).data.tags.get(SETTLED_TAG)
    if settled is None:
        before, tuned = flatten(configured), flatten(run_study(session, configured.tune))
        settled = json.dumps({key: value for key, value in tuned.items() if value != before[key]})
        tracker.set_tags(session.parent, {SETTLED_TAG: settled})
    elif configured.tune.trials:
        session.plan.say("tune: goes on with the values that were settled before; --force tunes anew")
    settings = with_values(configured, json.loads(settled))
    tracker.log_params(session.parent, flatten(settings))
    return settings


def run_study(session: Session, tune: TuneSettings) -> Settings:
    """Run the study, or what is left of it; without trials, the settings as they are.

    Args:
        session: the retraining.
        tune: its section `tune`, or what the command line made of it.

    Returns:
        The experiment's settings with the best trial's values.

    Raises:
        SettingsError: `tune.parameters`, `tune.storage` or the validator will not do.
        TuningError: every worker process ended, and trials are left.
    """
    settings = session.plan.settings
    if tune.trials == 0:
        return settings
    budget = Budget(tune.trials, None if tune.minutes is None else time.time() + 60 * tune.minutes)
    search = Search(session, tune)
    if not search.first:
        session.plan.say(f"tune: {settings.train.method} reads none of tune.parameters; nothing to tune")
        return settings
    with session.child("tune") as run:
        open_trials = tune.trials - search.study.finished
        if tune.workers == 1:
            search.work(run, budget)
        elif open_trials > 0:
            run_workers(search, run, budget, min(tune.workers, open_trials))
        best = search.study.best()
        _log(search, run, best)
    if best is None:
        session.plan.say("tune: no trial completed; the defaults stand")
        return settings
    return with_values(settings, best.values)


def best_preset(layout: Layout) -> Path:
    """Where the best configuration of an experiment's last study is, as a preset."""
    return layout.folder / "runs" / "best.yaml"


def _log(search: Search, run: str, best: Trial | None) -> None:
    """Pictures, report and preset, in the run `tune` and in the parent run, below `tuning/`."""
    session, select = search.session, search.session.plan.settings.select
    trials, importances = search.study.trials(), search.study.importances()
    study = Study(trials, search.space, select.validator.replace("_", " "))
    figures = {
        "history": history_figure(study),
        "slice": slice_figure(study),
        "importances": importances_figure(study, importances),
        "parallel_coordinates": parallel_figure(study),
    }
    texts = {"report.md": to_markdown(f"Study {search.name}: {study.counts}", trials, list(search.space), importances)}
    # Tags, as parameters never change, and a study that goes on may find better ones.
    tags = {"study": search.name, "best_trial": "none" if best is None else best.number}
    if best is not None:
        texts["best.yaml"] = _preset(search, best, study.counts)
        with atomic(best_preset(session.plan.layout)) as temporary:
            temporary.write_text(texts["best.yaml"], encoding="utf-8")
        tags |= {f"best.{key}": shown(value) for key, value in best.values.items()}
        figures_at_end = {"best_score": best.score, "best_worst_score": min(best.seeds)}
        session.tracker.log_metrics(run, [(len(trials), _milliseconds(best), figures_at_end)])
    session.tracker.set_tags(run, {f"oncoshift.{name}": value for name, value in tags.items()})
    for place in (run, session.parent):
        for name, figure in figures.items():
            session.tracker.log_figure(place, figure, f"tuning/{name}.png")
        for name, text in texts.items():
            session.tracker.log_text(place, text, f"tuning/{name}")


def _preset(search: Search, best: Trial, counts: str) -> str:
    """What the best configuration changes in params.yaml: tuned values, and what a preset and `--set` had changed."""
    plan, select = search.session.plan, search.session.plan.settings.select
    base = flatten(load_settings(plan.project / "params.yaml"))
    tuned = flatten(with_values(plan.settings, best.values))
    changed = {key: value for key, value in tuned.items() if key in best.values or base[key] != value}
    seeds = f", mean of {len(best.seeds)} seeds, the worst {shown(min(best.seeds))}" if len(best.seeds) > 1 else ""
    git = git_tags(plan.project)
    commit = f", commit {git[MLFLOW_GIT_COMMIT]}" if MLFLOW_GIT_COMMIT in git else ""
    dirty = " and changes" if git.get(MLFLOW_GIT_DIRTY) == "true" else ""
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime(_milliseconds(best) / 1000))
    above = f"{select.validator} above a source floor of {select.source_floor}"
    if not reaches_floor(select, min(best.seeds)):
        above = f"at least the worst seed's source accuracy is below the floor of {select.source_floor}"
    code = code_fingerprint("oncoshift.training.job")
    provenance = (
        f"Trial {best.number} of study {search.name} ({counts}), {search.tune.epochs} epochs, {date}.",
        f"Score {shown(best.score)}{seeds}: {above}.",
        f"Data {search.session.jobs.data_digest}, code {code}{commit}{dirty}.",
        "tune.trials is 0, as these values are tuned: oncoshift retrain --preset PATH",
    )
    return preset_text(changed | {"tune.trials": 0}, provenance)


def _milliseconds(trial: Trial) -> int:
    """When a trial began, since 1970: a time that is the same however often something is logged with it."""
    return int(trial.began.timestamp() * 1000) if trial.began is not None else 0
