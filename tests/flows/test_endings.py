"""Runs end in a state that says why, in the records of a real Prefect server."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import TaskRunSort

from flows.endings import StoppableTask, ending_in_a_state
from oncoshift.errors import DataError, TrainingInterrupted

pytestmark = pytest.mark.usefixtures("lasting_server")


def stop() -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except TrainingInterrupted as error:
        raise ValueError("a library wraps what a signal raised in it") from error


@flow(validate_parameters=False)
@ending_in_a_state
def stopped() -> None:
    StoppableTask(stop, name="stop", retries=2)()
    pytest.fail("it went on")


@flow
@ending_in_a_state
def mistaken() -> None:
    raise DataError("one class only")


@flow
@ending_in_a_state
def sound(number: int) -> int:
    """Double.

    Args:
        number: any.
    """
    doubled: int = StoppableTask(lambda each: 2 * each, name="double")(number)
    return doubled


def test_what_sigterm_stopped_is_shown_as_stopped_flow_and_task_alike() -> None:
    state: Any = stopped(return_state=True)
    assert (state.type.value, state.name) == ("CANCELLED", "Stopped")
    with pytest.raises(TrainingInterrupted):
        state.result()
    with get_client(sync_client=True) as client:
        own = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        tasks = client.read_task_runs(flow_run_filter=own, sort=TaskRunSort.ID_DESC, limit=10)
    assert {task.state_name for task in tasks} <= {"Stopped"}, "events of tasks arrive within seconds"


def test_a_mistake_is_one_line_without_traceback(caplog: pytest.LogCaptureFixture) -> None:
    state: Any = mistaken(return_state=True)
    assert (state.name, state.message) == ("Failed", "one class only")
    assert all(record.exc_info is None for record in caplog.records)
    with pytest.raises(DataError, match="one class only"):
        state.result()


def test_a_sound_run_returns_its_result_and_keeps_its_parameters() -> None:
    assert sound(3) == 6
    assert sound.parameters.properties["number"] == {
        "title": "number", "type": "integer", "position": 0, "description": "any."
    }  # fmt: skip
