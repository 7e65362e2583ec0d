"""A schedule that is killed during a run goes on after `flows.serve` is restarted."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from e2e.schedule import Schedule
from prefect.client.schemas.objects import StateType

if TYPE_CHECKING:
    from e2e.conftest import Project


def epochs_done(project: Project) -> int:
    """Count the epochs of the control that the log reports since the last start."""
    return project.log.read_text().count("erm seed 0: epoch")


@pytest.mark.slow
def test_a_schedule_that_was_killed_or_stopped_goes_on_when_it_is_started_again(project: Project) -> None:
    project.change(
        train={"epochs": 16, "steps_per_epoch": 2}, tune={"trials": 0}, retrain={"seeds": 1}, select={"verdict": False}
    )
    schedule = Schedule(project)
    try:
        schedule.start()
        schedule.wait_until(lambda: epochs_done(project) > 2, "the control's third epoch")
        assert schedule.end(signal.SIGKILL) == -signal.SIGKILL

        schedule.start()
        schedule.wait_until(lambda: epochs_done(project) > 2, "a run that trains, after SIGKILL")
        assert "was killed earlier; Prefect now shows it as Crashed" in project.log.read_text()
        killed, going = schedule.runs()
        assert (killed.state_name, going.state_name) == ("Crashed", "Running")
        assert schedule.end(signal.SIGTERM) == 0
        assert "Traceback" not in project.log.read_text()
        assert "Finished in state Stopped(" in project.log.read_text()

        schedule.start()
        schedule.wait_until(lambda: len(schedule.ended()) >= 4, "a run that ends, and one after it")
        killed, stopped, promoted, unchanged = schedule.ended()[:4]
        assert (killed.state_name, stopped.state_name) == ("Crashed", "Stopped")
        assert stopped.state_type == StateType.CANCELLED
        assert (promoted.state_name, promoted.name) == ("Promoted", "retrain kidney: promoted, version 1 is champion")
        assert (unchanged.state_name, unchanged.name) == (
            "Unchanged",
            "retrain kidney: unchanged, version 1 is champion",
        )
        assert unchanged.state is not None
        assert str(unchanged.state.message).startswith("Nothing was trained: data, settings and code are those of")
        assert schedule.end(signal.SIGTERM, os.kill) == 0
    finally:
        schedule.kill()
