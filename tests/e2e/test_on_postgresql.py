"""`make up` on a real PostgreSQL keeps its records, and no password that it is given is written."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import requests
from e2e.conftest import new_project
from e2e.one_machine import Platform, is_final, write_schedules
from e2e.test_credentials import files_that_hold
from mlflow import MlflowClient
from sqlalchemy import make_url
from support.postgresql import find_binaries, running_server

if TYPE_CHECKING:
    from pathlib import Path

    from prefect.client.schemas.objects import FlowRun

DATABASE, NOTIFY = "hunter2-database", "hunter2-notify"
"""Passwords; the server takes any, as `trust` asks for none."""

ANSWERS = ("flow_runs", "task_runs", "logs", "artifacts", "block_documents", "automations", "deployments", "variables")


@pytest.mark.slow
def test_records_are_kept_in_postgresql_and_no_password_in_anything(tmp_path: Path) -> None:
    with running_server() as server:
        given = make_url(server.url).set(drivername="postgresql", password=DATABASE)
        project = new_project(tmp_path)
        write_schedules(project)
        platform = Platform(
            project,
            {
                "ONCOSHIFT_DATABASE_URL": given.render_as_string(hide_password=False),
                "ONCOSHIFT_NOTIFY_URL": f"json://me:{NOTIFY}@127.0.0.1:9/hook",
            },
        )
        said = [platform.call()]
        try:
            first = run_once(platform)
            assert list_tracked(platform) == [str(first.id)]
            said += [platform.call("--down"), platform.call()]
            assert [run.id for run in platform.list_runs()] == [first.id]
            assert list_tracked(platform) == [str(first.id)]
            second = run_once(platform)
            assert set(list_tracked(platform)) == {str(first.id), str(second.id)}
            told = {path: ask(platform, path) for path in ANSWERS}
            assert "oncoshift-notifications" in told["block_documents"], "the address to notify is kept"
            commands = [" ".join(process.cmdline()) for process in platform.find_processes()]
        finally:
            said.append(platform.call("--down"))
        dump = subprocess.run(
            [find_binaries() / "pg_dump", "--dbname", str(make_url(server.url).set(drivername="postgresql"))],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    assert str(first.id) in dump, "both keep their records there"
    assert not (project.root / ".prefect" / "prefect.db").exists()
    for secret in (DATABASE, NOTIFY):
        assert [path for path, answer in told.items() if secret in answer] == []
        assert files_that_hold(secret, project.root) == []
        assert secret not in dump
        assert secret not in "\n".join(said + commands)


def run_once(platform: Platform) -> FlowRun:
    """Have the small flow run once, to its end."""
    with platform.open_client() as client:
        deployment = client.read_deployment_by_name("small/small")
        made = client.create_flow_run_from_deployment(deployment.id, parameters={"seconds": 0})
        platform.wait_until(lambda: is_final(client.read_flow_run(made.id)), "the end of a run")
        ended = client.read_flow_run(made.id)
    assert ended.state_name == "Done"
    return ended


def list_tracked(platform: Platform) -> list[str]:
    """List the keys of the runs that MLflow's server knows."""
    address = f"http://127.0.0.1:{platform.ports[0]}"
    client = MlflowClient(address, address)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    return [run.data.tags["oncoshift.key"] for run in client.search_runs([experiment.experiment_id])]


def ask(platform: Platform, path: str) -> str:
    """Ask Prefect's server for all objects of a kind."""
    answer = requests.post(f"http://127.0.0.1:{platform.ports[1]}/api/{path}/filter", json={}, timeout=60)
    answer.raise_for_status()
    return answer.text
