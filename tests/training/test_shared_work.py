"""If two workers need one job or the same features, one computes them and the other waits."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from oncoshift.training.job import train_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job, TrainedJob

Row = Mapping[str, float]

_SECONDS = 300
"""Longer than any machine takes, so that what never comes ends the test."""


class Meeting:
    """A pause within the first worker's work, during which the second might interfere."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def stop(self, *_: object) -> None:
        self.reached.set()
        assert self.go_on.wait(_SECONDS)


@pytest.fixture
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


QUICK = {"train__epochs": 2, "train__steps_per_epoch": 2}


def nothing(*_: object) -> None:
    """Do nothing, as a hook."""


def test_a_job_is_trained_by_one(data: TrainingData, make_job: Callable[..., Job], workers: ThreadPoolExecutor) -> None:
    meeting, rows, job = Meeting(), list[Row](), make_job(**QUICK)
    first = workers.submit(train_job, job, data, meeting.stop)
    assert meeting.reached.wait(_SECONDS)
    second = workers.submit(train_job, job, data, rows.append)
    with pytest.raises(TimeoutError):
        second.result(timeout=2)
    assert rows == [], "nothing was trained, and no checkpoint of the other taken up"
    meeting.go_on.set()
    trained: list[TrainedJob] = [first.result(timeout=_SECONDS), second.result(timeout=_SECONDS)]
    assert trained[0].history == trained[1].history == rows, "times of day and all"


def test_frozen_features_are_computed_by_one(
    data: TrainingData, make_job: Callable[..., Job], workers: ThreadPoolExecutor
) -> None:
    def job(lr: float) -> Job:
        return make_job(model__freeze="all", train__augment=False, train__lr=lr, **QUICK)

    meeting, computed = Meeting(), list[tuple[int, int]]()
    first = workers.submit(train_job, job(0.1), data, nothing, meeting.stop)
    assert meeting.reached.wait(_SECONDS)
    second = workers.submit(train_job, job(0.2), data, nothing, lambda done, of: computed.append((done, of)))
    with pytest.raises(TimeoutError):
        second.result(timeout=2)
    meeting.go_on.set()
    assert first.result(timeout=_SECONDS).job.id != second.result(timeout=_SECONDS).job.id
    assert computed == []
