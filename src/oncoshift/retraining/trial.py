"""What one worker of a study does for a retraining: trains a configuration with each seed, logs it, scores it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna

from oncoshift.console import tenths
from oncoshift.errors import SettingsError
from oncoshift.experiments import resolved_url
from oncoshift.fingerprint import value_fingerprint
from oncoshift.methods.factory import method_settings
from oncoshift.selection.rule import ORACLE, score_row
from oncoshift.settings import flatten, with_values
from oncoshift.training.job import drop_checkpoint
from oncoshift.tuning.space import distributions, readable, search_space
from oncoshift.tuning.study import LostTrialError, SharedStudy
from oncoshift.tuning.worker import work

if TYPE_CHECKING:
    from oncoshift.retraining.session import Session
    from oncoshift.settings import TuneSettings
    from oncoshift.training.job import TrainedJob
    from oncoshift.tuning.space import Space
    from oncoshift.tuning.worker import Budget, TrialPlan


@dataclass(frozen=True)
class Search:
    """The study of one retraining.

    Attributes:
        session: the retraining.
        tune: section `tune`, or what the command line made of it.
    """

    session: Session
    tune: TuneSettings

    @cached_property
    def first(self) -> dict[str, Any]:
        """The present values of the settings to search; the first trial's.

        Raises:
            SettingsError: a key of `tune.parameters` cannot be tuned, or scores would be of target labels.
        """
        settings = self.session.plan.settings
        if settings.select.validator == ORACLE:
            raise SettingsError(
                "select.validator: oracle reads target labels, and tuning would choose by them; set tune.trials to 0"
            )
        keys, unread = readable(self.tune.parameters, {"model", "train", *method_settings(settings)}, settings)
        if unread:
            self.session.plan.say(f"tune: {settings.train.method} does not read {', '.join(unread)}; left out")
        present = flatten(settings)
        return {key: present[key] for key in keys}

    @cached_property
    def space(self) -> Space:
        """What is searched; see `search_space` for the errors."""
        return search_space(self.first)

    @cached_property
    def name(self) -> str:
        """Names all that scores depend on, so that a study never mixes what cannot be compared, and no more.

        How many trials there are, who runs them and until when are not in it: the study goes on.
        """
        settings = self.session.plan.settings
        parts = [
            self.session.jobs.job(settings, train__epochs=self.tune.epochs).id,
            {key: repr(item) for key, item in distributions(self.space).items()},
            [self.tune.seeds, self.tune.seed],
            [settings.select.validator, settings.select.source_floor],
            self.session.plan.forced,
        ]
        return f"{settings.target}-{settings.train.method}-{value_fingerprint(parts)}"

    @cached_property
    def study(self) -> SharedStudy:
        """The study in its database; see `SharedStudy` for the errors."""
        url = resolved_url(self.tune.storage, self.session.plan.layout.shared)
        return SharedStudy(url, self.name, self.tune.heartbeat_seconds, self.tune.seed)

    def work(self, run: str, budget: Budget) -> None:
        """Run trials in this process until there are none left to begin.

        Args:
            run: id of the MLflow run `tune`, under which each trial has one.
            budget: when to begin no more.
        """
        work(self.study, self.space, self.first, budget, lambda plan: self._trial(run, plan), self.session.plan.say)

    def _trial(self, tune_run: str, plan: TrialPlan) -> list[float]:
        """One score a seed."""
        session = self.session
        ended: optuna.TrialPruned | LostTrialError | None = None
        scores: list[float] = []
        with session.child(f"trial-{plan.number}", parent=tune_run) as run:
            session.tracker.log_params(run, plan.values)
            try:
                trained = [self._train(run, plan, number) for number in range(self.tune.seeds)]
            except (optuna.TrialPruned, LostTrialError) as error:  # no failure, so the run does not end as one
                session.tracker.set_tags(run, {"oncoshift.pruned": str(isinstance(error, optuna.TrialPruned)).lower()})
                ended = error
            else:
                scores = [score_row(session.plan.settings.select, done.history[-1]) for done in trained]
                figures = {"mean": sum(scores) / len(scores), "worst": min(scores), "spread": max(scores) - min(scores)}
                session.tracker.log_metrics(
                    run, [(0, trained[-1].ended_ms, {f"score/{name}": value for name, value in figures.items()})]
                )
        if ended is not None:
            raise ended
        return scores

    def _train(self, run: str, plan: TrialPlan, number: int) -> TrainedJob:
        """Train one seed.

        Each seed is a job of its own, so a trial that was killed in its second seed does not train its first again.
        Pruning looks at the first seed's epochs alone: there, all trials are at the same point with the same seed.
        """
        session, epochs = self.session, self.tune.epochs
        settings = session.plan.settings
        values = {**plan.values, "train.epochs": epochs, "seed": settings.seed + number}
        job = session.jobs.job(with_values(settings, values))
        session.tracker.set_tags(run, {f"oncoshift.job.s{job.settings.seed}": job.id})
        # A line a trial is enough for people; MLflow has the epochs.
        quiet = replace(session, plan=replace(session.plan, say=lambda _line: None))
        log = quiet.epoch_logger(run, "", epochs)

        def on_epoch(row: dict[str, float]) -> None:
            step, score = number * epochs + int(row["epoch"]), score_row(settings.select, row)
            log({**row, "epoch": float(step), "score": score})
            if number == 0:
                plan.report(step, score)

        try:
            return session.jobs.train(
                job, on_epoch, tenths(f"trial {plan.number}: features of tiles", session.plan.say)
            )
        except optuna.TrialPruned:
            drop_checkpoint(job)
            raise
