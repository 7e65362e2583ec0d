"""Schedules of one deployment that are due at the same time both start (Prefect's issue 17550)."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from e2e.conftest import new_project
from e2e.one_machine import TESTS, write_schedules
from e2e.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from prefect.client.schemas.objects import FlowRun

EVERY_MINUTE = "* * * * *"


@pytest.mark.slow
def test_overlapping_schedules_both_start_with_their_own_parameters(
    tmp_path: Path, prefect_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    project = new_project(tmp_path)
    prefect_home().rename(tmp_path / ".prefect")
    schedule = Schedule(project)
    write_schedules(
        project,
        *({"slug": name, "cron": EVERY_MINUTE, "parameters": {"name": name, "seconds": 1}} for name in ("a", "b")),
    )

    def list_due_together() -> list[FlowRun]:
        ended = schedule.ended()
        return [run for run in ended if run.expected_start_time == ended[0].expected_start_time]

    try:
        schedule.start()
        schedule.wait_until(lambda: len(list_due_together()) == 2, "two runs that were due at the same time")
        first, second = list_due_together()
        assert [first.state_name, second.state_name] == ["Done", "Done"]
        assert {first.parameters["name"], second.parameters["name"]} == {"a", "b"}
        assert first.end_time is not None
        assert second.start_time is not None
        assert first.end_time <= second.start_time, "one at a time, by the deployment's limit"
        tracked = project.client.get_experiment_by_name("small")
        assert tracked is not None
        names = {run.info.run_name for run in project.client.search_runs([tracked.experiment_id])}
        assert names == {"a", "b"}, "what the flow was given"
        assert schedule.end(signal.SIGTERM, os.kill) == 0
    finally:
        schedule.kill()
