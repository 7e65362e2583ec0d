"""A scheduled run waits, suspended, until a person has approved its model: typed, or in the UI."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from e2e.schedule import Schedule

from oncoshift.cli import main

if TYPE_CHECKING:
    from e2e.conftest import Project
    from prefect.client.schemas.objects import FlowRun

MODEL = "oncoshift-kidney"
NEVER = "0 0 1 1 *"


def start_run(schedule: Schedule) -> None:
    with schedule.open_client() as client:
        deployment = client.read_deployment_by_name("retrain/retrain")
        client.create_flow_run_from_deployment(deployment.id)


def count(schedule: Schedule, state: str) -> int:
    runs = schedule.runs()
    unexpected = {"Failed", "Crashed", "Unchanged", "Refused"} & {run.state_name for run in runs}
    assert not unexpected, schedule.project.log.read_text()[-4000:]
    return sum(run.state_name == state for run in runs)


def find_suspended(schedule: Schedule) -> FlowRun:
    (run,) = (run for run in schedule.runs() if run.state_name == "Suspended")
    return run


def find_aliases(project: Project) -> dict[str, str]:
    return {alias: str(version) for alias, version in project.client.get_registered_model(MODEL).aliases.items()}


@pytest.mark.slow
def test_a_person_decides(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.change(
        tune={"trials": 0},
        retrain={"seeds": 1},
        select={"verdict": False},
        gate={"approval": "human", "non_inferiority_margin": 1.0},
    )
    monkeypatch.chdir(project.root)
    schedule = Schedule(project, NEVER)
    try:
        schedule.start()
        start_run(schedule)
        schedule.wait_until(lambda: count(schedule, "Suspended") == 1, "a run that waits for a person")
        assert find_suspended(schedule).name == "retrain kidney: version 1 awaits approval"
        assert find_aliases(project) == {"challenger": "1"}

        start_run(schedule)
        schedule.wait_until(lambda: count(schedule, "Awaiting") == 1, "a run that finds that another one asks")
        assert schedule.end(signal.SIGTERM) == 0
        schedule.start()
        assert count(schedule, "Suspended") == 1

        assert main(["approve", "1", "--reason", "two readers agree"]) == 0
        assert find_aliases(project) == {"champion": "1"}
        schedule.wait_until(lambda: count(schedule, "Promoted") == 1, "the run that goes on after the answer")
        assert count(schedule, "Suspended") == 0

        project.change(train={"lr": 0.02})
        start_run(schedule)
        schedule.wait_until(lambda: count(schedule, "Suspended") == 1, "another run that waits")
        with schedule.open_client() as client:
            given = {"approve": True, "by": "anna", "reason": "fine"}
            client.resume_flow_run(find_suspended(schedule).id, run_input=given)
        schedule.wait_until(lambda: count(schedule, "Promoted") == 2, "the run that was answered in the UI")
        assert find_aliases(project) == {"champion": "2", "previous": "1"}
        last = [run for run in schedule.ended() if run.state_name == "Promoted"][-1]
        assert last.name == "retrain kidney: promoted, version 2 is champion"
        (gate,) = {
            run.data.tags["oncoshift.gate"]
            for run in project.client.search_runs([project.client.get_experiment_by_name("oncoshift").experiment_id])
            if run.data.tags.get("oncoshift.step") == "retrain"
        }
        assert gate == "promote"
        assert schedule.end(signal.SIGTERM) == 0
    finally:
        schedule.kill()
