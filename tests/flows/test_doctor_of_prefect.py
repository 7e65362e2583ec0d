"""Doctor finds dead runs, slots that no run holds, and idle schedules, on a real Prefect server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from prefect import flow, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.runner import Runner
from prefect.settings import get_current_settings
from prefect.states import Pending, Running

from flows.runs import GPU, _build_lock_path, ensure_gpu_limit, holding_run_lock
from oncoshift.maintenance.findings import Finding, Scene
from oncoshift.maintenance.prefect_checks import check_prefect
from oncoshift.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("lasting_server")


@flow(name="retrain")
def nothing() -> None:
    pass


@pytest.fixture
def examine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, list[Finding]]]:
    """A function that returns what is wrong, by check."""
    monkeypatch.setenv("PREFECT_API_URL", str(get_current_settings().api.url))
    scene = Scene(tmp_path, Settings(), "sqlite:///none.db", "sqlite:///none.db", "server")

    def run() -> dict[str, list[Finding]]:
        found: dict[str, list[Finding]] = {}
        for finding in check_prefect(scene):
            if finding.level != "ok":
                found.setdefault(finding.check, []).append(finding)
        return found

    return run


def test_a_dead_run_and_the_slots_it_left_are_found_and_mended(
    examine: Callable[[], dict[str, list[Finding]]],
) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(flow_id=client.create_flow(nothing), name="one", concurrency_limit=1)
        killed, elsewhere = client.create_flow_run_from_deployment(deployment), client.create_flow_run(nothing)
        for run in (killed, elsewhere):
            client.set_flow_run_state(run.id, Pending())
            client.set_flow_run_state(run.id, Running())
        ensure_gpu_limit()
        client.increment_concurrency_slots([GPU], slots=1, mode="concurrency")
        with holding_run_lock(killed.id):
            assert examine() == {}, "one lives, and the other may live on its machine"
        _build_lock_path(killed.id).touch()  # as SIGKILL leaves it
        (dead,) = examine()["flow runs"]
        assert dead.words == f"Prefect's run {killed.name!r} is Running, but its process is gone"
        assert dead.fix is not None
        dead.fix()
        assert client.read_flow_run(killed.id).state_name == "Crashed"
        assert examine() == {}, "the run that is left may hold the slot"
        client.delete_flow_run(elsewhere.id)
        (slots,) = examine()["slots"]
        assert slots.words == "Prefect's limit 'gpu': 1 slots are taken, but 0 runs are there"
        assert slots.remedy.endswith("`prefect global-concurrency-limit update gpu --active-slots 0`")
        client.update_global_concurrency_limit(GPU, GlobalConcurrencyLimitUpdate(active_slots=0))
        assert examine() == {}


def test_a_slot_of_a_deployment_is_held_by_its_own_runs_alone(examine: Callable[[], dict[str, list[Finding]]]) -> None:
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(nothing)
        deployment = client.create_deployment(flow_id=flow_id, name="limited", concurrency_limit=1)
        other = client.create_flow_run(nothing, state=Running())
        limit = client.read_deployment(deployment).global_concurrency_limit
        assert limit is not None
        client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(active_slots=1))
        (slots,) = examine()["slots"]
        assert f"deployment:{deployment}" in slots.words
        client.delete_deployment(deployment)
        client.delete_flow_run(other.id)


def test_a_schedule_that_nobody_serves_is_found_until_somebody_does(
    examine: Callable[[], dict[str, list[Finding]]],
) -> None:
    runner = Runner(name="oncoshift", pause_on_shutdown=False)
    yearly = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 0 1 1 *"), slug="yearly")
    idle = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 0 1 1 *"), slug="idle", active=False)
    runner.add_flow(nothing, name="nightly", schedules=[yearly])
    runner.add_flow(nothing, name="by-hand", schedules=[idle])
    (unserved,) = examine()["schedules"]
    assert unserved.words == "nobody serves the schedule of Prefect's deployment 'nightly'"
    assert unserved.remedy == "`make up`, or `python -m flows.serve`"
    asyncio.run(runner.start(run_once=True))
    deadline = time.monotonic() + 60
    while examine() != {}:  # the server notes in its own time who has asked
        assert time.monotonic() < deadline
        time.sleep(0.2)
