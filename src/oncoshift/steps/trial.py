"""The work of one worker of a study: train a configuration with each seed, record and score it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna

from oncoshift.console import report_tenths
from oncoshift.errors import SettingsError
from oncoshift.experiments import resolve_url
from oncoshift.fingerprint import fingerprint_value
from oncoshift.methods.factory import select_method_settings
from oncoshift.methods.registry import METHODS
from oncoshift.selection.choice import leave_out
from oncoshift.selection.rule import ORACLE, score_row
from oncoshift.settings import flatten, replace_values
from oncoshift.training.job import drop_checkpoint
from oncoshift.tuning.space import build_search_space, select_parameters, to_distributions
from oncoshift.tuning.study import LostTrialError, SharedStudy
from oncoshift.tuning.worker import work

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncoshift.settings import Settings, TuneSettings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import RunRecorder
    from oncoshift.training.epoch import Epoch
    from oncoshift.training.job import TrainedJob
    from oncoshift.tuning.space import Space
    from oncoshift.tuning.worker import Budget, TrialPlan


@dataclass(frozen=True)
class Search:
    """The study of one retraining.

    Attributes:
        settings: of the experiment; the first trial has their values.
        tune: section `tune`, with changes of the command line.
        jobs: of the experiment.
        forced: see `retraining.session.RetrainingPlan`.
        say: receives lines of progress.
    """

    settings: Settings
    tune: TuneSettings
    jobs: ExperimentJobs
    forced: str
    say: Callable[[str], None]

    @property
    def trained_settings(self) -> Settings:
        """The settings of the trials' trainings, without source organs that were left out."""
        return leave_out(self.settings, self.settings.retrain.left_out)

    @cached_property
    def first_values(self) -> dict[str, Any]:
        """The present values of the searched settings, which the first trial has.

        Raises:
            SettingsError: a key of `tune.parameters` cannot be tuned, or scores would depend on
                target labels.
        """
        settings = self.settings
        if settings.select.validator == ORACLE:
            raise SettingsError(
                "select.validator: oracle reads target labels, and tuning would choose by them; set tune.trials to 0"
            )
        own = () if METHODS[settings.train.method].closed_form else ("train",)
        keys, unread = select_parameters(
            self.tune.parameters, {"model", *own, *select_method_settings(settings)}, settings
        )
        if unread:
            self.say(f"tune: {settings.train.method} does not read {', '.join(unread)}; left out")
        present = flatten(settings)
        return {key: present[key] for key in keys}

    @cached_property
    def space(self) -> Space:
        """The search space; see `build_search_space` for the errors."""
        return build_search_space(self.first_values)

    @cached_property
    def name(self) -> str:
        """The study's name, a hash of all that scores depend on, so that trials are comparable.

        The number of trials, the workers and the time limit are not part of it, so a study can be
        continued.
        """
        settings = self.settings
        parts = [
            self.jobs.make_job(self.trained_settings, train__epochs=self.tune.epochs).id,
            {key: repr(item) for key, item in to_distributions(self.space).items()},
            [self.tune.seeds, self.tune.seed],
            [settings.select.validator, settings.select.source_floor],
            self.forced,
        ]
        return f"{settings.target}-{settings.train.method}-{fingerprint_value(parts)}"

    @cached_property
    def study(self) -> SharedStudy:
        """The study in its database; see `SharedStudy` for the errors."""
        url = resolve_url(self.tune.storage, self.jobs.layout.shared)
        return SharedStudy(url, self.name, self.tune.heartbeat_seconds, self.tune.seed)

    def work(self, recorder: RunRecorder, budget: Budget) -> None:
        """Run trials in this process until the budget allows no more.

        Args:
            recorder: of the run `tune`, under which each trial has a run.
            budget: when to start no more trials.
        """
        work(self.study, self.space, self.first_values, budget, lambda plan: self._run_trial(recorder, plan), self.say)

    def _run_trial(self, recorder: RunRecorder, plan: TrialPlan) -> list[float]:
        """Run one trial and return one score per seed."""
        ended: optuna.TrialPruned | LostTrialError | None = None
        scores: list[float] = []
        with recorder.step(f"trial-{plan.number}") as run:
            run.log_params(plan.values)
            try:
                trained = [self._train(run, plan, number) for number in range(self.tune.seeds)]
            except (optuna.TrialPruned, LostTrialError) as error:  # not a failure, so the run ends FINISHED
                run.set_tags({"oncoshift.pruned": str(isinstance(error, optuna.TrialPruned)).lower()})
                ended = error
            else:
                scores = [score_row(self.settings.select, done.last) for done in trained]
                figures = {"mean": sum(scores) / len(scores), "worst": min(scores), "spread": max(scores) - min(scores)}
                run.log_metrics({f"score/{name}": value for name, value in figures.items()}, trained[-1].ended_ms)
        if ended is not None:
            raise ended
        return scores

    def _train(self, recorder: RunRecorder, plan: TrialPlan, number: int) -> TrainedJob:
        """Train one seed.

        Each seed is a job of its own, so a trial killed in its second seed does not repeat the
        first. Pruning uses the epochs of the first seed alone, where all trials are at the same
        point with the same seed. The run shows each epoch, and a line of progress each tenth.
        """
        settings, epochs = self.trained_settings, self.tune.epochs
        values = {**plan.values, "train.epochs": epochs, "seed": settings.seed + number}
        job = self.jobs.make_job(replace_values(settings, values))
        recorder.set_tags({f"oncoshift.job.s{job.settings.seed}": job.id})

        began = 1000 * time.time()
        show_progress = report_tenths(f"trial {plan.number}: epochs of seed {job.settings.seed}", self.say)

        def on_epoch(epoch: Epoch) -> None:
            if epoch.ended_ms >= began:  # a training that goes on begins with the epochs that it has
                show_progress(epoch.number + 1, epochs)
            step, score = number * epochs + epoch.number, score_row(settings.select, epoch)
            recorder.log_epoch(epoch.with_figures(epoch=step, score=score))
            if number == 0:
                plan.report(step, score)

        try:
            return self.jobs.train(job, on_epoch, report_tenths(f"trial {plan.number}: features of tiles", self.say))
        except optuna.TrialPruned:
            drop_checkpoint(job)
            raise
