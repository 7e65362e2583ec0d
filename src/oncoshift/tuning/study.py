"""The Optuna study, in a database that any number of processes share.

A worker claims a trial and sends heartbeats while it runs it. A trial whose worker was killed or
stopped is queued again with the same values by the next worker that claims; since a job's id
follows from these values, the retry resumes from the job's checkpoint. Claims are counted under a
lock, so the study never gets more trials than requested.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import TrialState

from oncoshift.registry.client import shorten_error
from oncoshift.registry.waiting import patience
from oncoshift.secrets import remove_credentials
from oncoshift.tuning.lock import study_lock
from oncoshift.tuning.patience import patiently
from oncoshift.tuning.space import to_distributions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from optuna.trial import FrozenTrial

    from oncoshift.tuning.space import Space

T = TypeVar("T")

MAX_DEATHS = 3
"""Workers that may die of one configuration, say for lack of memory, before it is given up."""

_GRACE = 4
"""Heartbeats that may be missed, as on a busy machine, before a worker counts as dead."""

_BUSY_SECONDS = 60
"""Seconds that SQLite waits for another process's write; its default of 5 is short with many
workers."""

_PATIENCE_SECONDS = 120
"""Seconds that a database server may be away, say for a restart, before a worker gives up."""

_log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)


class LostTrialError(Exception):
    """This worker was slow, its trial was taken for dead, and another worker has it now."""


@dataclass(frozen=True)
class Claim:
    """The answer to a worker that asks for a trial.

    Attributes:
        trial: to run, or None if there is none at present.
        number: of the configuration, see `Trial`; −1 without a trial.
        done: whether the study is complete. If not, and there is no trial, others are running and
            may still be killed.
    """

    trial: optuna.Trial | None
    number: int
    done: bool


@dataclass(frozen=True)
class Trial:
    """The outcome of a configuration, taken from the last of its trials in Optuna's sense.

    Attributes:
        number: from 0; a retry of a killed trial keeps it, while Optuna numbers it anew.
        state: COMPLETE, PRUNED or FAIL; RUNNING or WAITING while the study is not complete.
        values: settings by dotted key.
        score: mean over seeds; of a pruned trial, the last one reported; NaN if there is none.
        seeds: score of each seed; empty unless complete.
        error: reason of failure, or None.
        began: start in local time, or None.
    """

    number: int
    state: str
    values: dict[str, Any]
    score: float
    seeds: tuple[float, ...]
    error: str | None
    began: datetime | None


class SharedStudy:
    """A study in a database, created if it does not exist.

    Args:
        url: SQLAlchemy URL of the database.
        name: identifies everything that the scores depend on, so that scores are comparable.
        heartbeat_seconds: between heartbeats; a worker that sends none for four times as long
            counts as dead.
        seed: of the sampler.

    Once the study is open, and within `waiting.waiting_for` before, a server that is away is waited
    for; `DatabaseAwayError` says that it stayed away.

    Raises:
        DatabaseAwayError: the database cannot be reached.
        SettingsError: the database cannot be used; see `study_lock`.
    """

    def __init__(self, url: str, name: str, heartbeat_seconds: int, seed: int = 0) -> None:
        self._url, self._seed = url, seed
        local = url.startswith("sqlite")
        self._patience = 0 if local else _PATIENCE_SECONDS
        self._options = {"connect_args": {"timeout": _BUSY_SECONDS}} if local else {"pool_pre_ping": True}
        self._heartbeat_seconds = heartbeat_seconds
        self._shown = remove_credentials(url)
        patiently(lambda: self._open(name), self._patience and (patience.get() or 0), self._shown)

    def _open(self, name: str) -> None:
        with study_lock(self._url), silencing_optuna():
            self._storage = RDBStorage(
                self._url,
                engine_kwargs=self._options,
                heartbeat_interval=self._heartbeat_seconds,
                grace_period=_GRACE * self._heartbeat_seconds,
            )
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
                load_if_exists=True,
            )
            self._id = self._storage.get_study_id_from_name(name)

    def claim(self, space: Space, first: Mapping[str, Any], trials: int) -> Claim:
        """Claim the next trial: a killed one if there is any, else a new one if trials are missing.

        Args:
            space: what to search.
            first: values of the study's first trial.
            trials: how many the study shall have; killed ones do not count, their retries do.
        """
        return self._patiently(lambda: self._claim(space, first, trials))

    def _claim(self, space: Space, first: Mapping[str, Any], trials: int) -> Claim:
        """Claim once; if cut short, it leaves a trial that the next claim requeues."""
        with study_lock(self._url), silencing_optuna():
            self._requeue()
            past = self._trials()
            running = sum(trial.state == TrialState.RUNNING for trial in past)
            finished = _count_finished(past)
            if finished + running >= trials:
                return Claim(None, -1, done=finished >= trials)
            if not past:
                self._study.enqueue_trial(dict(first))
            # Seeded by the trial's number, so that neither a resumed study nor two workers draw the
            # same values twice.
            seed = int(np.random.SeedSequence([self._seed, len(past)]).generate_state(1)[0])
            self._study.sampler = optuna.samplers.TPESampler(seed=seed)
            trial = self._study.ask(to_distributions(space))
            self._beat(trial.number)
            number = _find_number(trial, past)
            trial.set_user_attr("configuration", number)
            trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
            return Claim(trial, number, done=False)

    def report(self, trial: optuna.Trial, step: int, score: float) -> None:
        """Report an intermediate score, and prune a hopeless trial.

        Raises:
            optuna.TrialPruned: the trial's best score so far is below the median of the completed
                trials at this step.
            LostTrialError: another worker has the trial now.
        """
        try:
            self._patiently(lambda: trial.report(score, step))
        except UpdateFinishedTrialError:
            raise LostTrialError from None
        if self._patiently(trial.should_prune):
            raise optuna.TrialPruned

    def end(self, trial: optuna.Trial, state: TrialState, value: float | None = None, **facts: Any) -> bool:
        """Record a trial's outcome.

        A failed trial without a fact `error` did not fail because of its values and is run again.

        Args:
            trial: claimed by this worker.
            state: COMPLETE, PRUNED or FAIL.
            value: of a complete trial.
            facts: to keep with the trial.

        Returns:
            False if another worker has the trial now; then nothing is recorded.
        """
        return self._patiently(lambda: self._end(trial, state, value, facts))

    def _end(self, trial: optuna.Trial, state: TrialState, value: float | None, facts: Mapping[str, Any]) -> bool:
        with study_lock(self._url):
            present = self._trials()[trial.number].state
            if present != TrialState.RUNNING:
                return bool(present == state != TrialState.FAIL)  # recorded already, but the database's answer was lost
            for name, fact in facts.items():
                trial.set_user_attr(name, fact)
            self._study.tell(trial, value, state)
            return True

    @contextmanager
    def heartbeat(self, trial: optuna.Trial) -> Iterator[None]:
        """Send heartbeats while the block runs."""
        stop = threading.Event()

        def beat() -> None:
            missed = False
            while not stop.wait(self._heartbeat_seconds):
                try:
                    self._beat(trial.number)
                except StorageInternalError as error:  # the database is busy or away; the next heartbeat may succeed
                    if not missed:
                        words = shorten_error(error.__cause__ if isinstance(error.__cause__, Exception) else error)
                        _log.warning("trial %d: no heartbeat: %s", trial.number, words)
                    missed = True
                else:
                    missed = False
            self._storage.remove_session()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @property
    def finished(self) -> int:
        """Number of trials that have an outcome; a killed one has none, its retry will."""
        return _count_finished(self._patiently(self._trials))

    def list_trials(self) -> tuple[Trial, ...]:
        """List all trials except those that lost their worker and were run again."""
        past = self._patiently(self._trials)
        again = {trial.user_attrs.get("resumes") for trial in past}
        return tuple(_summarise(trial, past) for trial in past if trial.number not in again)

    def find_best(self) -> Trial | None:
        """Find the best completed trial; see the function `find_best`."""
        return find_best(self.list_trials())

    def compute_importances(self) -> dict[str, float] | None:
        """Compute each setting's share of the scores' variance (fANOVA, Hutter 2014).

        Returns:
            By dotted key, the greatest first; None with fewer than two settings or different
            scores.
        """
        complete = list_completed(self.list_trials())
        if len({trial.score for trial in complete}) < 2 or len(complete[0].values) < 2:
            return None
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found: dict[str, float] = self._patiently(
            lambda: optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        )
        return found

    def _patiently(self, operation: Callable[[], T]) -> T:
        return patiently(operation, self._patience, self._shown)

    def _trials(self) -> Sequence[FrozenTrial]:
        trials: Sequence[FrozenTrial] = self._study.get_trials(deepcopy=False)
        return trials

    def _beat(self, number: int) -> None:
        self._storage.record_heartbeat(self._storage.get_trial_id_from_study_id_trial_number(self._id, number))

    def _requeue(self) -> None:
        """Requeue every trial whose worker is gone; if cut short, the next claim does the rest."""
        # Not Optuna's RetryHeartbeatStaleTrialCallback: it queues only what it has just marked as
        # failed, so it loses a trial if the worker dies between the two, and does not retry one
        # that was stopped.
        for trial in self._trials():
            if trial.state == TrialState.RUNNING and "worker" not in trial.user_attrs:  # killed while claiming
                self._study.tell(trial.number, state=TrialState.FAIL)
        fail_stale_trials(self._study)
        past = self._trials()
        queued = {trial.user_attrs.get("resumes") for trial in past}
        for trial in past:
            if trial.state == TrialState.FAIL and _find_error(trial) is None and trial.number not in queued:
                number = _find_number(trial, past)
                _log.info("trial %d: its worker is gone; it is queued again", number)
                self._study.enqueue_trial(
                    {**trial.system_attrs.get("fixed_params", {}), **trial.params},
                    user_attrs={"resumes": trial.number, "configuration": number, "deaths": _count_deaths(trial)},
                )


def _count_finished(trials: Iterable[FrozenTrial]) -> int:
    """Count the trials that have an outcome."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return sum(trial.state in ended or _find_error(trial) is not None for trial in trials)


def list_completed(trials: Iterable[Trial]) -> list[Trial]:
    """List the completed trials."""
    return [trial for trial in trials if trial.state == TrialState.COMPLETE.name]


def find_best(trials: Iterable[Trial]) -> Trial | None:
    """Find the completed trial with the highest score, the first of equals, or None."""
    return max(list_completed(trials), key=lambda trial: (trial.score, -trial.number), default=None)


def _find_number(trial: FrozenTrial | optuna.Trial, past: Sequence[FrozenTrial]) -> int:
    """Find the number of the trial's configuration: how many configurations came before it."""
    others = sum("resumes" not in other.user_attrs for other in past[: trial.number])
    return int(trial.user_attrs.get("configuration", others))


def _summarise(trial: FrozenTrial, past: Sequence[FrozenTrial]) -> Trial:
    return Trial(
        number=_find_number(trial, past),
        state=trial.state.name,
        values=dict(trial.params),
        score=math.nan if trial.value is None else trial.value,
        seeds=tuple(trial.user_attrs.get("seeds", ())),
        error=_find_error(trial),
        began=trial.datetime_start,
    )


def _find_error(trial: FrozenTrial) -> str | None:
    """Find why a configuration failed permanently, or None."""
    if trial.state != TrialState.FAIL:
        return None
    if "error" not in trial.user_attrs and _count_deaths(trial) >= MAX_DEATHS:
        return f"given up: {MAX_DEATHS} workers died of it"
    error: str | None = trial.user_attrs.get("error")
    return error


def _count_deaths(trial: FrozenTrial) -> int:
    """Count the workers that died of a failed trial's values; stopped ones do not count."""
    return int(trial.user_attrs.get("deaths", 0)) + ("stopped" not in trial.user_attrs)


@contextmanager
def silencing_optuna() -> Iterator[None]:
    """Silence Optuna's warnings that heartbeats are experimental and meant for `Study.optimize`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")
        yield
