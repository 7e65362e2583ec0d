"""Runs whose process has died are found, and are ended in the records of a real Prefect server."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from prefect import flow, get_client
from prefect.settings import PREFECT_HOME, temporary_settings
from prefect.states import Pending, Running, Scheduled

from flows import runs
from flows.runs import GPU, end_dead_runs, ensure_gpu_limit, holding_run_lock, is_alive, skip_missed_runs
from flows.server import ensure_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from flows.runs import holding_run_lock
with holding_run_lock(sys.argv[1]):
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def home(prefect_home: Callable[[], Path]) -> Iterator[Path]:
    folder = prefect_home()
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_HOME: folder}):
        patch.setenv("PREFECT_HOME", str(folder))
        yield folder


def hold(run: object) -> subprocess.Popen[str]:
    """Start a process that keeps a run alive."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], cwd=REPOSITORY, stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    return process


def test_a_run_lives_as_long_as_its_process(home: Path) -> None:
    run = uuid4()
    assert not is_alive(run)
    process = hold(run)
    assert is_alive(run)
    process.kill()
    process.wait()
    assert not is_alive(run)
    with holding_run_lock(run):
        pass
    assert not is_alive(run)
    assert list((home / "living").glob(f"{run}*")) == [], "what a run that ended by itself held is gone"


def in_the_past(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


@flow
def nothing() -> None:
    pass


def test_runs_whose_process_is_gone_are_ended_and_give_their_places_back(home: Path) -> None:
    with ensure_server(), get_client(sync_client=True) as client:
        ensure_gpu_limit()
        client.increment_concurrency_slots([GPU], slots=1, mode="concurrency")
        going, gone, elsewhere = (client.create_flow_run(nothing, state=Running()) for _ in range(3))
        about_to = client.create_flow_run(nothing, state=Pending())
        lives, dies = hold(going.id), hold(gone.id)
        dies.kill()
        dies.wait()

        def states() -> list[str | None]:
            return [client.read_flow_run(run.id).state_name for run in (going, gone, elsewhere, about_to)]

        def taken() -> int:
            return client.read_global_concurrency_limit_by_name(GPU).active_slots

        assert end_dead_runs(own=False) == [gone.name], "on a lasting server, others may live on other machines"
        assert states() == ["Running", "Crashed", "Running", "Pending"]
        assert end_dead_runs(own=True) == [elsewhere.name]
        assert states() == ["Running", "Crashed", "Crashed", "Pending"]
        assert taken() == 1, "it may be the living one's"
        assert end_dead_runs(own=True, waiting=going.id) == []
        assert taken() == 0, "the living one says that it waits for it"
        client.increment_concurrency_slots([GPU], slots=1, mode="concurrency")
        lives.kill()
        lives.wait()
        assert set(end_dead_runs(own=True, pending=True)) == {going.name, about_to.name}
        assert states() == ["Crashed"] * 4
        assert taken() == 0
        state = client.read_flow_run(going.id).state
        assert state is not None
        assert "the next run goes on from where it was" in str(state.message)


def test_a_run_that_waits_for_the_gpu_of_a_killed_one_gets_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runs, "_TELL_SECONDS", 1)
    internal = logging.getLogger("prefect._internal")
    monkeypatch.setattr(internal, "propagate", True)
    monkeypatch.setattr(logging.getLogger("prefect"), "propagate", True)
    said: list[str] = []
    with ensure_server(), get_client(sync_client=True) as client:
        ensure_gpu_limit()
        client.increment_concurrency_slots([GPU], slots=1, mode="concurrency")
        killed, waits = (client.create_flow_run(nothing, state=Running()) for _ in range(2))
        began = time.monotonic()
        with holding_run_lock(waits.id), runs.holding_gpu(waits.id, said.append):
            assert time.monotonic() - began < runs._LOOK_AGAIN_SECONDS, "it looks at once"
            assert client.read_flow_run(killed.id).state_name == "Crashed"
            assert client.read_global_concurrency_limit_by_name(GPU).active_slots == 1
        assert said == [runs._WAITS]
        assert "ConcurrencySlot" not in caplog.text, "Prefect's own error for each wait that timed out"
        assert client.read_global_concurrency_limit_by_name(GPU).active_slots == 0


def test_the_lease_of_a_killed_run_does_not_outlive_it(home: Path) -> None:
    """Else it would free, when it expires, the place of the run that holds the GPU then."""
    with ensure_server(), get_client(sync_client=True) as client:
        ensure_gpu_limit()
        client.increment_concurrency_slots_with_lease([GPU], slots=1, mode="concurrency", lease_duration=60)
        assert len(list((home / "concurrency_leases").glob("*-*.json"))) == 1
        end_dead_runs(own=True)
        assert client.read_global_concurrency_limit_by_name(GPU).active_slots == 0
        assert list((home / "concurrency_leases").glob("*-*.json")) == []


def test_a_restart_gives_a_deployments_places_back_and_makes_up_for_missed_runs_by_one(home: Path) -> None:
    with ensure_server(), get_client(sync_client=True) as client:
        flow_id = client.create_flow(nothing)
        deployment = client.create_deployment(flow_id=flow_id, name="scheduled", concurrency_limit=2)
        lives, gone = (client.create_flow_run_from_deployment(deployment) for _ in range(2))
        for run in (lives, gone):
            client.set_flow_run_state(run.id, Pending())
            client.set_flow_run_state(run.id, Running())
    process = hold(lives.id)
    with ensure_server() as own, get_client(sync_client=True) as client:  # another server, without a lease
        limit = client.read_deployment(deployment).global_concurrency_limit
        assert limit is not None
        assert limit.active_slots == 2
        assert gone.name in end_dead_runs(own=own)
        due = [
            client.create_flow_run_from_deployment(deployment, state=Scheduled(scheduled_time=in_the_past(n)))
            for n in (3, 1, 2)
        ]
        later = client.create_flow_run_from_deployment(deployment, state=Scheduled(scheduled_time=in_the_past(-60)))
        other = client.create_flow_run_from_deployment(
            deployment, state=Scheduled(scheduled_time=in_the_past(4)), parameters={"target": "lung"}
        )
        assert skip_missed_runs(deployment) == 2
        states = [client.read_flow_run(run.id).state_name for run in (*due, later, other)]
        assert states == ["Skipped", "Scheduled", "Skipped", "Scheduled", "Scheduled"], "the last of equal ones is done"
        limit = client.read_deployment(deployment).global_concurrency_limit
        assert limit is not None
        assert limit.active_slots == 1
    process.kill()
    process.wait()
