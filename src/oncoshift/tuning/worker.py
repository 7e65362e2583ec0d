"""A worker of a study: it claims and runs trials until none are left to start."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from oncoshift.errors import OncoshiftError, ProcessLostError, SettingsError, TrainingError, TrainingInterrupted
from oncoshift.registry.waiting import trying_once
from oncoshift.tuning.study import LostTrialError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from oncoshift.tuning.space import Space
    from oncoshift.tuning.study import SharedStudy

_POLL_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialPlan:
    """One trial to run.

    Attributes:
        number: of the configuration; a retry of a killed trial keeps it.
        values: settings by dotted key.
        report: takes step and intermediate score; raises `optuna.TrialPruned` for a hopeless trial,
            and `LostTrialError` if another worker has the trial now.
    """

    number: int
    values: dict[str, Any]
    report: Callable[[int, float], None]


@dataclass(frozen=True)
class Budget:
    """The limits of a study.

    Attributes:
        trials: how many the study shall have.
        deadline: after which no trial starts, seconds since 1970, or None.
    """

    trials: int
    deadline: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self.deadline is not None and time.time() >= self.deadline


def work(
    study: SharedStudy,
    space: Space,
    first: Mapping[str, Any],
    budget: Budget,
    run_trial: Callable[[TrialPlan], Sequence[float]],
    say: Callable[[str], None],
) -> None:
    """Run trials until the study is complete or the time is up; any number of processes may.

    A worker without a trial waits for the others' last ones, to retry any that is killed.

    Args:
        study: to work on.
        space: to search.
        first: values of the study's first trial.
        budget: limits of the study.
        run_trial: trains a trial and returns a score for each seed; the mean counts, higher is
            better. A `TrainingError`, or a `SettingsError` for incompatible values, fails only that
            trial.
        say: takes one line a trial.
    """
    while not budget.is_over:
        claim = study.claim(space, first, budget.trials)
        if claim.done:
            return
        if claim.trial is None:
            time.sleep(_POLL_SECONDS)
            continue
        with study.heartbeat(claim.trial):
            outcome = _run(study, claim.trial, claim.number, run_trial)
        values = ", ".join(f"{key} {_format_short(value)}" for key, value in claim.trial.params.items())
        say(f"trial {claim.number}: {values}: {outcome}{_format_best(study)}")


def _run(
    study: SharedStudy, trial: optuna.Trial, number: int, run_trial: Callable[[TrialPlan], Sequence[float]]
) -> str:
    """Run a claimed trial, record its outcome, and return it in words."""

    def report(step: int, score: float) -> None:
        study.report(trial, step, score)

    try:
        scores = run_trial(TrialPlan(number, dict(trial.params), report))
        mean = sum(scores) / len(scores)
        if not math.isfinite(mean):
            raise TrainingError(f"score {mean} is not finite")
    except optuna.TrialPruned:
        words, kept = "pruned", study.end(trial, TrialState.PRUNED)
    except ProcessLostError:  # treated as if this process were killed: the next worker resumes the trial
        _release(study, trial, number)
        raise
    except (TrainingError, SettingsError) as error:
        words, kept = f"failed: {error}", study.end(trial, TrialState.FAIL, error=str(error))
    except LostTrialError:
        words, kept = "", False
    except BaseException as error:
        # Stopped or broken, but not because of these values: the next worker resumes the trial.
        asked = isinstance(error, KeyboardInterrupt | TrainingInterrupted)
        _release(study, trial, number, **({"stopped": True} if asked else {}))
        raise
    else:
        worst, spread = min(scores), max(scores) - min(scores)
        kept = study.end(trial, TrialState.COMPLETE, mean, seeds=list(scores), worst=worst, spread=spread)
        words = f"score {mean:.3f}" + (f" (worst seed {worst:.3f})" if len(scores) > 1 else "")
    return words if kept else "lost: this worker was slow and taken for dead, and another one has the trial now"


def _release(study: SharedStudy, trial: optuna.Trial, number: int, **facts: bool) -> None:
    """Release a trial for a retry, trying once; failing that, its missed heartbeats release it."""
    try:
        with trying_once():
            study.end(trial, TrialState.FAIL, **facts)
    except OncoshiftError as error:
        _log.warning("trial %d: not released (%s); another worker retries it once its heartbeats stop", number, error)


def _format_best(study: SharedStudy) -> str:
    best = study.find_best()
    return "" if best is None else f"; best so far {best.score:.3f}, trial {best.number}"


def _format_short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
