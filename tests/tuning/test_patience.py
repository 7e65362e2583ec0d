"""An unreachable database is retried for a limited time, then named."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from oncoshift.errors import TrainingInterrupted
from oncoshift.registry import waiting
from oncoshift.training.interruption import interruptible, stop_on_sigterm
from oncoshift.tuning import study
from oncoshift.tuning.lock import study_lock
from oncoshift.tuning.patience import DatabaseAwayError, patiently
from oncoshift.tuning.space import build_search_space
from oncoshift.tuning.study import SharedStudy
from oncoshift.tuning.worker import Budget, TrialPlan, work

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLOSED = OperationalError("SELECT 1", {}, Exception("server closed the connection\n  unexpectedly"))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only sleeping advances."""
    now = SimpleNamespace(seconds=0.0)

    def sleep(seconds: float) -> None:
        now.seconds += seconds

    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: now.seconds, sleep=sleep))
    return now


def test_it_is_asked_again_until_it_answers_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[Exception] = [CLOSED, *[DatabaseAwayError("tune.storage: postgresql://host/studies: refused")] * 9]

    def operation() -> str:
        if failures:
            raise failures.pop()
        return "answer"

    assert patiently(operation, 120, "postgresql://host/studies") == "answer"
    away, back = [record.message for record in caplog.records]
    assert away == "tune.storage: postgresql://host/studies does not answer (refused); waiting for up to 120 s"
    assert back.startswith("it answers again, after ")


def test_after_that_it_is_named_with_the_reason(clock: SimpleNamespace) -> None:
    def operation() -> None:
        try:
            raise CLOSED
        except OperationalError as error:
            raise StorageInternalError from error

    message = (
        r"host/studies does not answer \(server closed the connection unexpectedly\); waited for 120 s; start it again"
    )
    with pytest.raises(DatabaseAwayError, match=message) as raised:
        patiently(operation, 120, "postgresql://host/studies")
    assert raised.value.exit_code == 69
    assert 120 <= clock.seconds <= 122


def test_what_is_no_outage_is_raised_at_once(clock: SimpleNamespace) -> None:
    def operation() -> None:
        raise StorageInternalError

    with pytest.raises(StorageInternalError):
        patiently(operation, 120, "postgresql://host/studies")
    assert clock.seconds == 0


def test_sigterm_in_a_training_ends_the_wait(clock: SimpleNamespace) -> None:
    def operation() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise CLOSED

    with interruptible() as asked:
        with pytest.raises(TrainingInterrupted):
            patiently(operation, 120, "postgresql://host/studies")
        assert asked()
    assert clock.seconds == 0


@pytest.fixture
def terminable() -> Iterator[None]:
    """SIGTERM as a study's worker handles it."""
    before = signal.getsignal(signal.SIGTERM)
    stop_on_sigterm()
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("terminable")
def test_a_stopped_worker_ends_at_once_though_the_database_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    found = SharedStudy(f"sqlite:///{tmp_path}/optuna.db", "s", heartbeat_seconds=60)
    monkeypatch.setattr(found, "_patience", 120)

    def trial(plan: TrialPlan) -> tuple[float, ...]:
        @event.listens_for(found._storage.engine, "before_cursor_execute")
        def fail(*_: object) -> None:
            raise CLOSED

        with interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
            plan.report(0, 0.5)
        return (0.5,)

    first = {"train.lr": 0.01}
    with pytest.raises(TrainingInterrupted) as raised:
        work(found, build_search_space(first), first, Budget(1), trial, lambda _line: None)
    assert raised.value.exit_code == 75
    assert clock.seconds == 0
    assert "trial 0: not released" in caplog.text


def test_a_study_goes_on_through_outages_with_no_trial_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    away = SimpleNamespace(statements=0, locks=0)
    found = SharedStudy(url, "s", heartbeat_seconds=60)
    monkeypatch.setattr(found, "_patience", 120)

    @event.listens_for(found._storage.engine, "before_cursor_execute")
    def fail(*_: object) -> None:
        if away.statements:
            away.statements -= 1
            raise CLOSED

    @contextmanager
    def lock(url: str) -> Iterator[None]:
        if away.locks:
            away.locks -= 1
            raise DatabaseAwayError("refused")
        with study_lock(url):
            yield

    monkeypatch.setattr(study, "study_lock", lock)
    first = {"train.lr": 0.01, "dann.max_lambda": 0.33}
    seen: list[int] = []

    def trial(plan: TrialPlan) -> tuple[float, ...]:
        seen.append(plan.number)
        away.statements = 2
        plan.report(0, 0.5)
        away.statements, away.locks = 3, 2  # for the outcome, and the next claim
        return (0.5,)

    work(found, build_search_space(first), first, Budget(3), trial, lambda _line: None)
    assert seen == [0, 1, 2]
    assert [each.state for each in found.list_trials()] == ["COMPLETE"] * 3
    assert away == SimpleNamespace(statements=0, locks=0)
