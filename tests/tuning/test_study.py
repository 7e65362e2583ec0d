"""A study resumes, prunes, and survives failed and killed trials; workers share it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.trial import TrialState

from oncoshift.errors import ProcessLostError, SettingsError, TrainingError, TrainingInterrupted
from oncoshift.tuning.lock import study_lock
from oncoshift.tuning.space import build_search_space
from oncoshift.tuning.study import MAX_DEATHS, LostTrialError, SharedStudy
from oncoshift.tuning.worker import Budget, TrialPlan, work

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuning.conftest import Workers

    from oncoshift.tuning.study import Trial

FIRST = {"train.lr": 1e-2, "dann.max_lambda": 1.0}
SPACE = build_search_space(FIRST)


def score(plan: TrialPlan) -> tuple[float, ...]:
    return (-abs(plan.values["dann.max_lambda"] - 0.5),)


def run(
    storage: str,
    trials: int,
    run_trial: Callable[[TrialPlan], tuple[float, ...]] = score,
    lines: list[str] | None = None,
) -> SharedStudy:
    study = SharedStudy(storage, "s", heartbeat_seconds=1)
    work(study, SPACE, FIRST, Budget(trials), run_trial, (lines if lines is not None else []).append)
    return study


def states(storage: str) -> list[str]:
    """List the states of all trials in the database, including those that were run again."""
    return [trial.state.name for trial in optuna.load_study(study_name="s", storage=storage).trials]


def rates(study: SharedStudy) -> list[float]:
    return [trial.values["train.lr"] for trial in study.list_trials()]


def best(study: SharedStudy) -> Trial:
    found = study.find_best()
    assert found is not None
    return found


def test_first_trial_is_the_default_and_the_best_is_found(storage: str) -> None:
    seen: list[TrialPlan] = []

    def spy(plan: TrialPlan) -> tuple[float, ...]:
        seen.append(plan)
        return score(plan)

    lines: list[str] = []
    found = best(run(storage, 8, spy, lines))
    assert seen[0].values == FIRST
    assert [plan.number for plan in seen] == list(range(8))
    assert found.score == max(score(plan)[0] for plan in seen)
    assert -abs(found.values["dann.max_lambda"] - 0.5) == found.score
    assert lines[0] == "trial 0: train.lr 0.01, dann.max_lambda 1: score -0.500; best so far -0.500, trial 0"
    assert lines[-1].endswith(f"best so far {found.score:.3f}, trial {found.number}")


def test_the_mean_over_seeds_counts_and_the_worst_is_kept(storage: str) -> None:
    outcomes = {0: (0.9, 0.1), 1: (0.6, 0.5), 2: (0.2, 0.3)}
    lines: list[str] = []
    found = best(run(storage, 3, lambda plan: outcomes[plan.number], lines))
    assert (found.number, found.score, found.seeds) == (1, 0.55, (0.6, 0.5))
    assert "score 0.500 (worst seed 0.100); best so far 0.500, trial 0" in lines[0]
    facts = [trial.user_attrs for trial in optuna.load_study(study_name="s", storage=storage).trials]
    assert [each["worst"] for each in facts] == [0.1, 0.5, 0.2]
    assert [each["spread"] for each in facts] == pytest.approx([0.8, 0.1, 0.1])


def test_a_study_goes_on_where_it_was_as_if_it_had_not_stopped(storage: str, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    run(storage, 3)
    whole = run(storage, 14)
    assert len(set(rates(whole))) == 14

    def never(plan: TrialPlan) -> tuple[float, ...]:
        raise AssertionError("the study has its trials")

    assert len(run(storage, 14, never).list_trials()) == 14
    at_once = run(f"sqlite:///{tmp_path_factory.mktemp('other')}/optuna.db", 14)
    assert rates(at_once) == rates(whole)


def test_a_trial_that_diverges_fails_alone(storage: str) -> None:
    def diverges(plan: TrialPlan) -> tuple[float, ...]:
        if plan.number == 1:
            raise TrainingError("loss is not finite")
        return (float("nan"),) if plan.number == 2 else score(plan)

    study = run(storage, 4, diverges)
    assert states(storage) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert [trial.error for trial in study.list_trials()] == [
        None,
        "loss is not finite",
        "score nan is not finite",
        None,
    ]


def test_a_study_of_failures_alone_ends_and_says_why(storage: str) -> None:
    def fails(plan: TrialPlan) -> tuple[float, ...]:
        raise SettingsError(f"no. {plan.number}")

    lines: list[str] = []
    study = run(storage, 2, fails, lines)
    assert study.find_best() is None
    assert study.compute_importances() is None
    assert [trial.error for trial in study.list_trials()] == ["no. 0", "no. 1"]
    assert lines[0] == "trial 0: train.lr 0.01, dann.max_lambda 1: failed: no. 0"


def test_hopeless_trials_are_pruned(storage: str) -> None:
    epochs: dict[int, int] = {}

    def trial(plan: TrialPlan) -> tuple[float, ...]:
        for epoch in range(5):
            epochs[plan.number] = epoch
            plan.report(epoch, 1.0 if plan.number < 3 else 0.0)
        return (1.0,)

    run(storage, 4, trial)
    assert states(storage) == ["COMPLETE"] * 3 + ["PRUNED"]
    assert epochs[3] < 4


def test_when_the_time_is_up_no_trial_begins_and_those_that_have_begun_end(storage: str) -> None:
    begun: list[TrialPlan] = []

    class UntilTheFirst(Budget):
        """A budget that is used up while the first trial runs."""

        @property
        def is_over(self) -> bool:
            return bool(begun)

    def trial(plan: TrialPlan) -> tuple[float, ...]:
        begun.append(plan)
        return score(plan)

    work(SharedStudy(storage, "s", heartbeat_seconds=1), SPACE, FIRST, UntilTheFirst(5), trial, print)
    assert states(storage) == ["COMPLETE"]
    assert len(run(storage, 3).list_trials()) == 3, "with more time it goes on"


def test_a_budget_is_over_at_its_deadline() -> None:
    now = time.time()
    assert [Budget(1, deadline).is_over for deadline in (None, now + 3600, now)] == [False, False, True]


@pytest.mark.parametrize("asked", [KeyboardInterrupt, TrainingInterrupted])
def test_a_trial_that_was_stopped_goes_on_however_often(storage: str, asked: type[BaseException]) -> None:
    values: list[dict[str, float]] = []

    def stopped(plan: TrialPlan) -> tuple[float, ...]:
        values.append(plan.values)
        raise asked

    for _ in range(MAX_DEATHS + 2):
        with pytest.raises(asked):
            run(storage, 1, stopped)
    assert values == [FIRST] * (MAX_DEATHS + 2)
    (trial,) = run(storage, 1).list_trials()
    assert states(storage) == ["FAIL"] * (MAX_DEATHS + 2) + ["COMPLETE"]
    assert (trial.number, trial.state) == (0, "COMPLETE"), "all of them are one trial"


@pytest.mark.parametrize("error", [RuntimeError, ProcessLostError])
def test_a_configuration_that_kills_its_workers_is_given_up(storage: str, error: type[Exception]) -> None:
    """It is given up whether a worker fails or one of its training processes does."""

    def breaks(plan: TrialPlan) -> tuple[float, ...]:
        if plan.number == 0:
            raise error("broken")
        return score(plan)

    for _ in range(MAX_DEATHS):
        with pytest.raises(error, match="broken"):
            run(storage, 2, breaks)
    given_up, other = run(storage, 2, breaks).list_trials()
    assert states(storage) == ["FAIL"] * MAX_DEATHS + ["COMPLETE"]
    assert given_up.error == f"given up: {MAX_DEATHS} workers died of it"
    assert other.error is None


def test_a_slow_worker_loses_its_trial_to_the_next_and_notes_nothing(storage: str) -> None:
    slow, other = (SharedStudy(storage, "s", heartbeat_seconds=1) for _ in range(2))
    late = slow.claim(SPACE, FIRST, 1).trial
    assert late is not None
    waiting = other.claim(SPACE, FIRST, 1)
    assert (waiting.trial, waiting.done) == (None, False)
    deadline = time.monotonic() + 20
    while (taken := other.claim(SPACE, FIRST, 1).trial) is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert taken.params == late.params
    with pytest.raises(LostTrialError):
        slow.report(late, 0, 0.5)
    assert not slow.end(late, TrialState.COMPLETE, 0.5)
    assert other.end(taken, TrialState.COMPLETE, 0.7)
    assert states(storage) == ["FAIL", "COMPLETE"]
    assert other.claim(SPACE, FIRST, 1).done


def test_a_heartbeat_keeps_a_long_trial(storage: str) -> None:
    study, other = (SharedStudy(storage, "s", heartbeat_seconds=1) for _ in range(2))
    trial = study.claim(SPACE, FIRST, 1).trial
    assert trial is not None
    with study.heartbeat(trial):
        time.sleep(6.5)  # a worker counts as dead after 4 seconds without a heartbeat
        assert other.claim(SPACE, FIRST, 1).trial is None
    assert study.end(trial, TrialState.COMPLETE, 0.5)


def test_a_worker_killed_while_it_claims_leaves_no_trial_behind(storage: str) -> None:
    first = SharedStudy(storage, "s", heartbeat_seconds=1)
    raw = optuna.load_study(study_name="s", storage=storage)
    raw.ask()  # RUNNING without values or a heartbeat, which Optuna's own check overlooks
    raw.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))  # failed, and the killed process queued no retry
    run(storage, 2)
    assert states(storage) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert first.claim(SPACE, FIRST, 2).done


def test_workers_share_trials_and_none_is_doubled(workers: Workers) -> None:
    for _ in range(4):
        workers.start(trials=13, seconds=0.05)
    workers.wait()
    assert states(workers.url) == ["COMPLETE"] * 13
    assert sorted(number for number, _ in workers.begun()) == list(range(13))
    begun = [rate for _, rate in workers.begun()]
    assert len(set(begun)) == 13
    assert begun.count(FIRST["train.lr"]) == 1
    trials = optuna.load_study(study_name="s", storage=workers.url).trials
    assert len({trial.user_attrs["worker"] for trial in trials}) > 1, "more than one of them worked"


def test_killed_workers_trials_are_run_by_the_living_with_the_same_values(workers: Workers) -> None:
    dying = [workers.start(trials=6, seconds=600) for _ in range(2)]
    workers.wait_until(lambda: len(workers.begun()) == 2)
    workers.start(trials=6, seconds=0.05)
    workers.wait_until(lambda: len(workers.begun()) == 6)  # the other has done every free trial, and waits
    for process in dying:
        os.kill(process.pid, signal.SIGKILL)
    workers.wait()

    assert Counter(states(workers.url)) == {"COMPLETE": 6, "FAIL": 2}
    trials = SharedStudy(workers.url, "s", 1).list_trials()
    assert sorted(trial.number for trial in trials) == list(range(6))
    assert len({trial.values["train.lr"] for trial in trials}) == 6
    again = Counter(workers.begun())
    assert sorted(again.values()) == [1, 1, 1, 1, 2, 2]
    assert {number for (number, _), times in again.items() if times == 2} == {0, 1}, "with number and values"


def test_a_stopped_worker_comes_back_to_a_study_that_went_on(workers: Workers) -> None:
    slow = workers.start(trials=2, seconds=3)
    workers.wait_until(lambda: len(workers.begun()) == 1)
    os.kill(slow.pid, signal.SIGSTOP)  # like a laptop whose lid is closed
    workers.start(trials=2, seconds=0.05)
    workers.wait_until(lambda: len(workers.begun()) == 3)
    os.kill(slow.pid, signal.SIGCONT)
    workers.wait()
    assert Counter(states(workers.url)) == {"COMPLETE": 2, "FAIL": 1}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("optuna.db", "not a database URL"),
        ("mysql://host/studies", "must be a SQLite file or a PostgreSQL database"),
        ("sqlite://", "must be a SQLite file"),
        ("postgresql+psycopg3000://host/studies", "psycopg3000"),
    ],
)
def test_a_database_that_will_not_do_is_told(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=rf"tune\.storage: .*{message}"), study_lock(url):
        pass
