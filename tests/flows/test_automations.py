"""Drift starts one retraining in a cool-down; a receiver is told of what somebody should know."""

from __future__ import annotations

import json
import shutil
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import AutomationSort, FlowRunSort
from prefect.events import emit_event
from prefect.states import Completed, Failed, Pending, Running, Suspended
from support.tiny_tiles import write_tree

from flows import data
from flows.automations import NOTIFY_URL, bring_up_to_date, build_notifications, build_trigger_automations
from flows.deployments import read_deployments
from flows.retrain import retrain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

    from flows.deployments import ServedDeployment

pytestmark = pytest.mark.usefixtures("lasting_server")

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Messages that a local receiver has got."""
    messages: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(NOTIFY_URL, f"json://127.0.0.1:{server.server_port}/hook")
        yield messages
        server.shutdown()


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as opened:
        yield opened


def wait_until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline, f"never reached: {what}"
        time.sleep(0.2)


def list_runs(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    own = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    return client.read_flow_runs(deployment_filter=own, sort=FlowRunSort.ID_DESC, limit=200)


def report_drift(model: str) -> None:
    emit_event("oncoshift.drift", resource={"prefect.resource.id": f"oncoshift.model.{model}"}, payload={"batch": "b"})


def read_own(folder: Path) -> list[ServedDeployment]:
    """Read the deployment `retrain` of the project's list, and a copy of it for lung."""
    listed = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    (kidney,) = (each for each in listed if each["name"] == "retrain")
    lung = {**kidney, "name": "retrain-lung", "parameters": {"target": "lung", "sources": ["colon"]}}
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({"deployments": [kidney, lung]}))
    return read_deployments(path)


def test_drift_starts_one_retraining_of_its_own_model_in_a_cool_down(client: SyncPrefectClient, tmp_path: Path) -> None:
    flow = client.create_flow(retrain)
    kidney, lung = (client.create_deployment(flow_id=flow, name=name) for name in ("kidney", "lung"))

    def register() -> None:
        own = zip((kidney, lung), read_own(tmp_path), strict=True)
        bring_up_to_date([core for made, each in own for core in build_trigger_automations(made, each.triggers)])

    register()
    report_drift("oncoshift-kidney")
    wait_until(lambda: len(list_runs(client, kidney)) == 1, "a retraining")
    register()  # as a restart of `flows.serve` does
    for model in ("oncoshift-kidney", "oncoshift-lung"):
        report_drift(model)
    wait_until(lambda: len(list_runs(client, lung)) == 1, "a retraining of the other model")
    time.sleep(2)  # the events are taken in their order: the second of the first model came before
    assert (len(list_runs(client, kidney)), len(list_runs(client, lung))) == (1, 1)


def test_a_new_version_of_the_data_starts_a_retraining_once(
    client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "data" / "raw", groups=1, tiles=1)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    monkeypatch.setattr(data, "PROJECT", tmp_path)
    deployment = client.create_deployment(flow_id=client.create_flow(retrain), name="at-new-data")
    triggers: list[Any] = read_own(tmp_path)[0].triggers
    for cool_down in (timedelta(hours=1), timedelta(0)):  # which a second start changes
        for trigger in triggers:
            trigger.within = cool_down
        bring_up_to_date(build_trigger_automations(deployment, triggers))

    for count in (1, 2):
        assert data.main([]) == 0
        assert capsys.readouterr().out.endswith(", reported as oncoshift.data\n")
        wait_until(lambda count=count: len(list_runs(client, deployment)) == count, "a retraining")  # type: ignore[misc]
        assert data.main([]) == 0
        assert capsys.readouterr().out.endswith(", as reported before\n")
        (tmp_path / "data" / "raw" / "kidney" / "new.png").write_bytes(b"new")
    time.sleep(2)
    assert len(list_runs(client, deployment)) == 2

    assert data.main(["--set", f"ingest.root={tmp_path.parent}"]) == 2
    assert "prefect event emit oncoshift.data --resource-id" in capsys.readouterr().err


def test_overlapping_schedules_with_different_parameters_are_both_planned(client: SyncPrefectClient) -> None:
    """Prefect's issue 17550: of two schedules that are due together, one was lost."""
    cron = CronSchedule(cron="0 2 * * *")
    schedules = [DeploymentScheduleCreate(schedule=cron, slug=each, parameters={"target": each}) for each in "ab"]
    made = client.create_deployment(flow_id=client.create_flow(retrain), name="overlap", schedules=schedules)

    def list_targets_of_next_time() -> set[str]:
        runs = list_runs(client, made)
        first = min((run.expected_start_time for run in runs if run.expected_start_time), default=None)
        return {run.parameters["target"] for run in runs if run.expected_start_time == first}

    wait_until(lambda: list_targets_of_next_time() == {"a", "b"}, "a run for each at the same time")


def test_a_receiver_is_told_of_failure_approval_promotion_and_drift(
    received: list[dict[str, Any]], client: SyncPrefectClient
) -> None:
    bring_up_to_date(build_notifications(["retrain"]))
    ends: list[State[Any]] = [
        Failed(message="no tiles of liver"),
        Suspended(),
        Completed(name="Promoted", message="version 4"),
        Completed(name="Unchanged"),
    ]
    for end in ends:
        run = client.create_flow_run(retrain, name=f"retrain kidney {end.name}", state=Pending())
        for state in (Running(), end):
            client.set_flow_run_state(run.id, state, force=True)
    report_drift("oncoshift-kidney")
    wait_until(lambda: len(received) >= 4, "four messages")
    time.sleep(2)
    assert {message["title"] for message in received} == {
        "retrain kidney Failed · Failed",
        "retrain kidney Suspended · Suspended",
        "retrain kidney Promoted · Promoted",
        "oncoshift.model.oncoshift-kidney · drift",
    }
    (failed,) = (message for message in received if "Failed" in message["title"])
    assert failed["message"].startswith("no tiles of liver\nhttp://127.0.0.1:")


def test_an_automation_stays_until_its_definition_changes(
    received: list[dict[str, Any]], client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_automations() -> dict[str, UUID]:
        return {each.name: each.id for each in client.read_automations(sort=AutomationSort.NAME_ASC, limit=100)}

    bring_up_to_date(build_notifications(["retrain"]))
    before = list_automations()
    assert len(before) == 4
    bring_up_to_date(build_notifications(["retrain", "score"]))
    assert list_automations() == before
    monkeypatch.delenv(NOTIFY_URL)
    bring_up_to_date(build_notifications(["retrain"]))
    assert list_automations() == {}
