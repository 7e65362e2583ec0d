"""The Optuna study: in a database, with heartbeats, so that it survives its workers.

A killed trial is found by its stale heartbeat and requeued with the same values; since a training job's id follows
from its values, the retry goes on from the killed trial's checkpoint. A study that has its trials runs no more.
"""

from __future__ import annotations

import logging
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import TrialState

from oncoshift.errors import TrainingError
from oncoshift.tuning.space import search_space, suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from oncoshift.settings import Tune

_log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class TrialPlan:
    """One trial to run.

    Attributes:
        number: of the trial; of the original one where a killed trial is run again.
        values: settings by dotted key.
        report: called with epoch and score after each epoch; raises `optuna.TrialPruned` for a hopeless trial.
    """

    number: int
    values: dict[str, float]
    report: Callable[[int, float], None]


@dataclass(frozen=True)
class TuningResult:
    """What a study found.

    Attributes:
        values: the best trial's settings by dotted key; empty where no trial completed, then the defaults stand.
        score: of the best trial, or None.
        number: of the best trial, or None.
        trials: one row a trial: number, state, value, params_…, datetime_start, duration.
    """

    values: dict[str, float]
    score: float | None
    number: int | None
    trials: pd.DataFrame


def tune(
    settings: Tune,
    *,
    storage: str,
    study_name: str,
    defaults: dict[str, float],
    run_trial: Callable[[TrialPlan], float],
) -> TuningResult:
    """Run a study to its number of trials, or the rest of it; the first trial has the default values.

    Args:
        settings: section `tune`.
        storage: SQLAlchemy URL of the study database.
        study_name: names everything that the scores depend on, so that only like is compared with like.
        defaults: present values of the tuned settings.
        run_trial: trains and scores one trial; higher is better. A `TrainingError` fails that trial alone.

    Raises:
        SettingsError: a key in `tune.parameters` has no range.
    """
    space = search_space(settings.parameters)
    study = _open(settings, storage, study_name)
    if not study.trials:
        study.enqueue_trial({key: defaults[key] for key in space}, skip_if_exists=True)
    _requeue_killed(study, settings.heartbeat_seconds)

    def objective(trial: optuna.Trial) -> float:
        values = suggest(trial, space)
        number = _original_number(study, trial)

        def report(epoch: int, score: float) -> None:
            trial.report(score, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            return run_trial(TrialPlan(number, values, report))
        except TrainingError as error:
            trial.set_user_attr("error", str(error))
            raise

    while _finished(study) < settings.trials:
        study.optimize(objective, n_trials=1, catch=(TrainingError,))
    return _result(study)


def _open(settings: Tune, storage: str, study_name: str) -> optuna.Study:
    with _without_experimental_warnings():
        database = RDBStorage(
            storage,
            heartbeat_interval=settings.heartbeat_seconds,
            grace_period=2 * settings.heartbeat_seconds,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=3),
        )
    study = optuna.create_study(storage=database, study_name=study_name, direction="maximize", load_if_exists=True)
    # A sampler starts its random numbers anew in each process; counting on keeps a resumed study from repeating itself.
    study.sampler = optuna.samplers.TPESampler(seed=settings.seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)
    return study


@contextmanager
def _without_experimental_warnings() -> Iterator[None]:
    """Optuna has called its heartbeats experimental since 2.8."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _original_number(study: optuna.Study, trial: optuna.Trial) -> int:
    """Number of the trial that this one runs again, or its own."""
    history = study.get_trials(deepcopy=False)[trial.number].system_attrs.get("retry_history")
    return int(history[0]) if history else trial.number


def _requeue_killed(study: optuna.Study, heartbeat_seconds: int) -> None:
    """Requeue trials whose worker is gone; waits out the grace period, since a fresh kill does not look dead yet."""
    deadline = time.monotonic() + 3 * heartbeat_seconds
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if running:
        _log.info("%d trials look as if they were running; waiting for a sign of life", len(running))
    while running and time.monotonic() < deadline:
        time.sleep(0.5)
        with _without_experimental_warnings():
            fail_stale_trials(study)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _finished(study: optuna.Study) -> int:
    """Trials that have an outcome; a killed one has none, its retry will."""
    trials = study.get_trials(deepcopy=False)
    return sum(
        trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "error" in trial.user_attrs for trial in trials
    )


def _result(study: optuna.Study) -> TuningResult:
    trials = study.trials_dataframe(attrs=("number", "state", "value", "params", "datetime_start", "duration"))
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return TuningResult({}, None, None, trials)
    best = study.best_trial
    return TuningResult(dict(best.params), best.value, best.number, trials)
