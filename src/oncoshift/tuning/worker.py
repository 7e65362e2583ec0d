"""One worker of a study: claims trials and runs them until there are none left to begin."""

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
        number: of the configuration; the same where a killed trial is run again.
        values: settings by dotted key.
        report: called with step and score on the way; raises `optuna.TrialPruned` for a hopeless trial, and
            `LostTrialError` for one that is another worker's now.
    """

    number: int
    values: dict[str, Any]
    report: Callable[[int, float], None]


@dataclass(frozen=True)
class Budget:
    """When to begin no more.

    Attributes:
        trials: how many trials the study should come to.
        deadline: seconds since 1970, or None.
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
    """Run trials until the study has them all or the time is up. Any number of processes may do this at once.

    A worker with nothing to do waits for the others' last trials, to run again one that is killed.

    Args:
        study: to work on.
        space: what to search.
        first: the study's first trial has these values.
        budget: when to begin no more.
        run_trial: trains a trial; one score a seed, of which the mean counts, higher is better. A `TrainingError`, or
            a `SettingsError` for values that do not go together, fails that trial alone.
        say: takes a line for each trial.
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
    """Run a claimed trial and note its outcome, also returned in words."""

    def report(step: int, score: float) -> None:
        study.report(trial, step, score)

    try:
        scores = run_trial(TrialPlan(number, dict(trial.params), report))
        mean = sum(scores) / len(scores)
        if not math.isfinite(mean):
            raise TrainingError(f"score {mean} is not finite")
    except optuna.TrialPruned:
        words, kept = "pruned", study.end(trial, TrialState.PRUNED)
    except ProcessLostError:  # as when this process itself is killed or breaks: the next to claim goes on
        _release(study, trial, number)
        raise
    except (TrainingError, SettingsError) as error:
        words, kept = f"failed: {error}", study.end(trial, TrialState.FAIL, error=str(error))
    except LostTrialError:
        words, kept = "", False
    except BaseException as error:
        # Asked to stop, or broken: not these values' fault, so the next to claim goes on with them.
        asked = isinstance(error, KeyboardInterrupt | TrainingInterrupted)
        _release(study, trial, number, **({"stopped": True} if asked else {}))
        raise
    else:
        worst, spread = min(scores), max(scores) - min(scores)
        kept = study.end(trial, TrialState.COMPLETE, mean, seeds=list(scores), worst=worst, spread=spread)
        words = f"score {mean:.3f}" + (f" (worst seed {worst:.3f})" if len(scores) > 1 else "")
    return words if kept else "was slow, was taken for dead, and is another worker's now"


def _release(study: SharedStudy, trial: optuna.Trial, number: int, **facts: bool) -> None:
    """Note, with one quick try, that a trial is to be run again; else it is when its heartbeats are missed."""
    try:
        with trying_once():
            study.end(trial, TrialState.FAIL, **facts)
    except OncoshiftError as error:
        _log.warning("trial %d: that it is to be run again is not noted, but it will be: %s", number, error)


def _format_best(study: SharedStudy) -> str:
    best = study.find_best()
    return "" if best is None else f"; best so far {best.score:.3f}, trial {best.number}"


def _format_short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
