"""The Optuna study: in a database, shared by any number of processes, none of which it depends on.

A worker claims a trial, and its heartbeat says that it lives. A trial whose worker was killed, or told to stop, is
queued again with its values by whoever claims next; since a training job's id follows from its values, the retry goes
on from the job's checkpoint. Claims are counted under a lock, so there are never more trials than there should be.
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
from sqlalchemy import make_url

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
"""So many workers may die of one configuration (for want of memory, say); then it is given up."""

_GRACE = 4
"""Heartbeats that may be missing before a worker counts as dead: a busy machine delays them."""

_BUSY_SECONDS = 60
"""How long SQLite waits for another process's write; its own 5 seconds are few with many workers."""

_PATIENCE_SECONDS = 120
"""How long a database server may be away, restarted for example, before a worker gives up."""

_log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)


class LostTrialError(Exception):
    """The trial was taken for dead while this worker was slow, and is another's now."""


@dataclass(frozen=True)
class Claim:
    """What a worker may do now.

    Attributes:
        trial: to run; None: there is none at present.
        number: of its configuration, see `Trial`; −1 without one.
        done: the study has its trials. Else, without a trial, others are running, and one may yet be killed.
    """

    trial: optuna.Trial | None
    number: int
    done: bool


@dataclass(frozen=True)
class Trial:
    """What became of a configuration: of the last of the trials, in Optuna's sense, that it took.

    Attributes:
        number: from 0; where a killed trial was run again, Optuna's own numbers run on, and this one does not.
        state: COMPLETE, PRUNED, FAIL, or RUNNING or WAITING where the study is not done.
        values: settings by dotted key.
        score: mean over its seeds; of a pruned trial, the last score before; NaN where there is none.
        seeds: one score a seed; empty unless complete.
        error: why it failed, or None.
        began: local time, or None.
    """

    number: int
    state: str
    values: dict[str, Any]
    score: float
    seeds: tuple[float, ...]
    error: str | None
    began: datetime | None


class SharedStudy:
    """A study in a database, made where absent.

    Args:
        url: SQLAlchemy URL of the database.
        name: names everything that the scores depend on, so that only like is compared with like.
        heartbeat_seconds: between signs of life; a worker that gives none for four times as long counts as dead.
        seed: of the sampler.

    A server that is away for a while once the study is open is waited for; then every method raises
    `DatabaseAwayError`.

    Raises:
        DatabaseAwayError: the database cannot be reached.
        SettingsError: the database cannot be used; see `study_lock`.
    """

    def __init__(self, url: str, name: str, heartbeat_seconds: int, seed: int = 0) -> None:
        self._url, self._seed = url, seed
        local = url.startswith("sqlite")
        self._patience = 0 if local else _PATIENCE_SECONDS
        options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_SECONDS}} if local else {"pool_pre_ping": True}
        with study_lock(url), _silencing_optuna():
            self._storage = RDBStorage(
                url,
                engine_kwargs=options,
                heartbeat_interval=heartbeat_seconds,
                grace_period=_GRACE * heartbeat_seconds,
            )
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
                load_if_exists=True,
            )
        self._shown = make_url(url).render_as_string(hide_password=True)
        self._id = self._storage.get_study_id_from_name(name)
        self._heartbeat_seconds = heartbeat_seconds

    def claim(self, space: Space, first: Mapping[str, Any], trials: int) -> Claim:
        """Take the next trial: one that was killed, else a new one if the study lacks trials.

        Args:
            space: what to search.
            first: the very first trial's values.
            trials: how many trials the study should come to; killed ones do not count, their retries do.
        """
        return self._patiently(lambda: self._claim(space, first, trials))

    def _claim(self, space: Space, first: Mapping[str, Any], trials: int) -> Claim:
        """Claim once; a claim that was cut short leaves a trial without a worker, which the next one queues again."""
        with study_lock(self._url), _silencing_optuna():
            self._requeue()
            past = self._trials()
            running = sum(trial.state == TrialState.RUNNING for trial in past)
            finished = _count_finished(past)
            if finished + running >= trials:
                return Claim(None, -1, done=finished >= trials)
            if not past:
                self._study.enqueue_trial(dict(first))
            # Each trial draws by its number, so that neither a study that goes on nor two workers draw the same twice.
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
            optuna.TrialPruned: the trial's best score so far is below the median of the completed trials' at this step.
            LostTrialError: the trial is another worker's now.
        """
        try:
            self._patiently(lambda: trial.report(score, step))
        except UpdateFinishedTrialError:
            raise LostTrialError from None
        if self._patiently(trial.should_prune):
            raise optuna.TrialPruned

    def end(self, trial: optuna.Trial, state: TrialState, value: float | None = None, **facts: Any) -> bool:
        """Record a trial's outcome. One that FAILED without a fact `error` was not the values' fault: it is run again.

        Args:
            trial: claimed by this worker.
            state: COMPLETE, PRUNED or FAIL.
            value: of a complete trial.
            facts: to keep with it.

        Returns:
            False if the trial is another worker's now; then nothing is noted.
        """
        return self._patiently(lambda: self._end(trial, state, value, facts))

    def _end(self, trial: optuna.Trial, state: TrialState, value: float | None, facts: Mapping[str, Any]) -> bool:
        with study_lock(self._url):
            present = self._trials()[trial.number].state
            if present != TrialState.RUNNING:
                return bool(present == state != TrialState.FAIL)  # noted already, and the answer was lost on the way
            for name, fact in facts.items():
                trial.set_user_attr(name, fact)
            self._study.tell(trial, value, state)
            return True

    @contextmanager
    def heartbeat(self, trial: optuna.Trial) -> Iterator[None]:
        """Show that this worker lives while the block runs."""
        stop = threading.Event()

        def beat() -> None:
            missed = False
            while not stop.wait(self._heartbeat_seconds):
                try:
                    self._beat(trial.number)
                except StorageInternalError as error:  # a busy database, or one that is away; the next beat may pass
                    if not missed:
                        _log.warning("trial %d: no heartbeat: %s", trial.number, error.__cause__ or error)
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
        """How many trials have an outcome; one that was killed has none, its retry will."""
        return _count_finished(self._patiently(self._trials))

    def list_trials(self) -> tuple[Trial, ...]:
        """List all trials but those that lost their worker and were run again."""
        past = self._patiently(self._trials)
        again = {trial.user_attrs.get("resumes") for trial in past}
        return tuple(_summarise(trial, past) for trial in past if trial.number not in again)

    def find_best(self) -> Trial | None:
        """See `find_best`."""
        return find_best(self.list_trials())

    def compute_importances(self) -> dict[str, float] | None:
        """Share of the scores' variance that each setting explains, the greatest first (fANOVA, Hutter 2014).

        Returns:
            By dotted key; None with fewer than two completed trials, settings or scores.
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
        """Queue again every trial whose worker is gone; where this is cut short, the next claim does the rest."""
        # Not Optuna's RetryHeartbeatStaleTrialCallback: it queues what it has just failed and nothing else, so a trial
        # is lost whose claimant dies between the two, and one that was told to stop is not run again.
        for trial in self._trials():
            if trial.state == TrialState.RUNNING and "worker" not in trial.user_attrs:  # killed while it claimed
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
    """Find the completed trial with the highest score, the first of equals; None where none completed."""
    return max(list_completed(trials), key=lambda trial: (trial.score, -trial.number), default=None)


def _find_number(trial: FrozenTrial | optuna.Trial, past: Sequence[FrozenTrial]) -> int:
    """Find the number of the trial's configuration: how many others came before it."""
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
    """Find why a configuration failed for good, or None."""
    if trial.state != TrialState.FAIL:
        return None
    if "error" not in trial.user_attrs and _count_deaths(trial) >= MAX_DEATHS:
        return f"given up: {MAX_DEATHS} workers died of it"
    error: str | None = trial.user_attrs.get("error")
    return error


def _count_deaths(trial: FrozenTrial) -> int:
    """Count the workers that died of a failed trial's values; one that was asked to stop does not count."""
    return int(trial.user_attrs.get("deaths", 0)) + ("stopped" not in trial.user_attrs)


@contextmanager
def _silencing_optuna() -> Iterator[None]:
    """Silence Optuna's warnings that heartbeats are experimental and meant for `Study.optimize`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")
        yield
