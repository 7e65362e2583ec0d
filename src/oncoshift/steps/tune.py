"""Step `tune`: the study, with one nested run per trial, and the settings it found."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_GIT_DIRTY

from oncoshift.files import atomic
from oncoshift.fingerprint import fingerprint_code
from oncoshift.registry.source import read_git_tags
from oncoshift.selection.rule import reaches_floor
from oncoshift.settings import flatten, load_settings, replace_values
from oncoshift.tuning.plots import StudyResults, draw_history, draw_importances, draw_parallel, draw_slices
from oncoshift.tuning.preset import format_preset
from oncoshift.tuning.tables import format_value, to_markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from oncoshift.layout import Layout
    from oncoshift.settings import Settings
    from oncoshift.steps.recorder import Recorder, RunRecorder
    from oncoshift.steps.trial import Search
    from oncoshift.tuning.study import Trial
    from oncoshift.tuning.worker import Budget

    RunWorkers = Callable[[RunRecorder, Budget, int], None]
    """Runs a study's trials in the given number of processes."""


@dataclass(frozen=True)
class Tuning:
    """The result of a study.

    Attributes:
        search: the study and its search space.
        trials: all trials.
        importances: share of each setting, by dotted key; None with too few trials.
        best: the trial with the highest score; None if none completed.
    """

    search: Search
    trials: tuple[Trial, ...]
    importances: Mapping[str, float] | None
    best: Trial | None

    @property
    def settings(self) -> Settings:
        """The experiment's settings with the best trial's values."""
        return self.search.settings if self.best is None else replace_values(self.search.settings, self.best.values)

    def record(self, recorder: Recorder) -> None:
        """Save plots, report and preset in the run `tune` and in its parent, below `tuning/`."""
        search, best = self.search, self.best
        study = StudyResults(self.trials, search.space, search.settings.select.validator.replace("_", " "))
        figures = {
            "history": draw_history(study),
            "slice": draw_slices(study),
            "importances": draw_importances(study, self.importances),
            "parallel_coordinates": draw_parallel(study),
        }
        title = f"Study {search.name}: {study.counts}"
        texts = {"report.md": to_markdown(title, self.trials, list(search.space), self.importances)}
        # Tags, because parameters are immutable and a continued study may find better values.
        tags = {"study": search.name, "best_trial": "none" if best is None else best.number}
        if best is not None:
            texts["best.yaml"] = _build_preset(search, best, study.counts)
            with atomic(locate_best_preset(search.jobs.layout)) as temporary:
                temporary.write_text(texts["best.yaml"], encoding="utf-8")
            tags |= {f"best.{key}": format_value(value) for key, value in best.values.items()}
            scores = {"best_score": best.score, "best_worst_score": min(best.seeds)}
            recorder.log_metrics(scores, _compute_start_ms(best), len(self.trials))
        recorder.set_tags({f"oncoshift.{name}": value for name, value in tags.items()})
        for place in (recorder, recorder.outer):
            for name, figure in figures.items():
                place.save_figure(f"tuning/{name}.png", figure)
            for name, text in texts.items():
                place.save_text(f"tuning/{name}", text)


def run(recorder: RunRecorder, search: Search, budget: Budget, run_workers: RunWorkers) -> Tuning:
    """Run a study, or its remaining trials.

    Args:
        recorder: the step's run, under which each trial has its own.
        search: the study.
        budget: when to start no more trials.
        run_workers: runs trials in several processes, as `tune.workers` says.

    Raises:
        SettingsError: `tune.storage` is not usable.
        TuningError: all worker processes ended before all trials were done.
    """
    open_trials = budget.trials - search.study.finished
    if search.tune.workers == 1:
        search.work(recorder, budget)
    elif open_trials > 0:
        run_workers(recorder, budget, min(search.tune.workers, open_trials))
    best = search.study.find_best()
    return Tuning(search, search.study.list_trials(), search.study.compute_importances(), best)


def locate_best_preset(layout: Layout) -> Path:
    """Return the path of the preset with the best configuration of an experiment's last study."""
    return layout.folder / "runs" / "best.yaml"


def _build_preset(search: Search, best: Trial, counts: str) -> str:
    """Format what the best trial changes in params.yaml, with preset and `--set`."""
    settings, project = search.settings, search.jobs.layout.shared
    base = flatten(load_settings(project / "params.yaml"))
    tuned = flatten(replace_values(settings, best.values))
    changed = {key: value for key, value in tuned.items() if key in best.values or base[key] != value}
    seeds = (
        f", mean of {len(best.seeds)} seeds, the worst {format_value(min(best.seeds))}" if len(best.seeds) > 1 else ""
    )
    git = read_git_tags(project)
    commit = f", commit {git[MLFLOW_GIT_COMMIT]}" if MLFLOW_GIT_COMMIT in git else ""
    dirty = " and changes" if git.get(MLFLOW_GIT_DIRTY) == "true" else ""
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime(_compute_start_ms(best) / 1000))
    above = f"{settings.select.validator} above a source floor of {settings.select.source_floor}"
    if not reaches_floor(settings.select, min(best.seeds)):
        above = f"at least the worst seed's source accuracy is below the floor of {settings.select.source_floor}"
    code = fingerprint_code("oncoshift.training.job")
    provenance = (
        f"Trial {best.number} of study {search.name} ({counts}), {search.tune.epochs} epochs, {date}.",
        f"Score {format_value(best.score)}{seeds}: {above}.",
        f"Data {search.jobs.data_digest}, code {code}{commit}{dirty}.",
        "tune.trials is 0, as these values are tuned: oncoshift retrain --preset PATH",
    )
    settled: dict[str, Any] = {"tune.trials": 0}
    if base["retrain.methods"] or settings.retrain.methods:
        settled["retrain.methods"] = []  # these values are those of one method
    return format_preset(changed | settled, provenance)


def _compute_start_ms(trial: Trial) -> int:
    """Return a trial's start in ms since 1970, so that logging again gives the same time."""
    return int(trial.began.timestamp() * 1000) if trial.began is not None else 0
