"""Deployments are handed to work pools in one call, which a pool's workers are not asked about."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prefect import get_client
from prefect.blocks.system import Secret
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.sorting import AutomationSort, DeploymentSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from flows.deploy import main
from flows.deployments import _add_overrides

if TYPE_CHECKING:
    import pytest

LISTED: dict[str, Any] = {
    "name": "lung",
    "entrypoint": "flows.retrain.retrain",
    "work_pool": {"name": "process", "job_variables": {"env": {"A": "b"}}},
    "concurrency_limit": 1,
    "parameters": {"target": "lung", "sources": ["colon", "kidney"]},
    "schedules": [{"slug": "nightly", "cron": "0 2 * * *", "timezone": "UTC"}],
    "triggers": [{"name": "at new data", "expect": ["oncoshift.data"]}],
}


def write(folder: Path, *listed: dict[str, object]) -> str:
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({"deployments": list(listed)}))
    return str(path)


def test_each_deployment_comes_with_pool_schedule_trigger_and_folder(
    lasting_server: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="process", type="process"))
    listed = write(tmp_path, LISTED, {**LISTED, "name": "second", "triggers": []})
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["--file", listed]) == 0
        assert capsys.readouterr().out == "retrain/lung: work pool process\nretrain/second: work pool process\n"
        with get_client(sync_client=True) as client:  # a person pauses the schedule
            paused = client.read_deployment_by_name("retrain/lung")
            client.update_deployment_schedule(paused.id, paused.schedules[0].id, active=False)
    assert main(["--file", listed]) == 0
    with get_client(sync_client=True) as client:
        made = client.read_deployment_by_name("retrain/lung")
        automations = [each.name for each in client.read_automations(sort=AutomationSort.NAME_ASC, limit=10)]
        count = len(client.read_deployments(sort=DeploymentSort.NAME_ASC, limit=10))
    assert count == 2, "a second call changes nothing"
    assert (made.work_pool_name, made.entrypoint) == ("process", "flows.retrain.retrain")
    assert made.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}]
    assert made.job_variables == {"env": {"A": "b"}}
    assert made.parameters == LISTED["parameters"]
    assert [(schedule.slug, schedule.active) for schedule in made.schedules] == [("nightly", False)]
    assert made.global_concurrency_limit is not None
    assert made.global_concurrency_limit.limit == 1
    assert automations == ["lung at new data"]


def test_a_pool_and_settings_are_given_to_all(lasting_server: None, tmp_path: Path) -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="others", type="process"))
    own = {"slug": "own", "cron": "0 3 * * *", "parameters": {"overrides": ["seed=1"]}}
    plain = {"slug": "plain", "cron": "0 2 * * *"}
    listed = write(tmp_path, {**LISTED, "name": "all", "schedules": [own, plain], "triggers": []})
    assert main(["--file", listed, "--pool", "others", "--set", "gate.approval=human"]) == 0
    with get_client(sync_client=True) as client:
        made = client.read_deployment_by_name("retrain/all")
    assert (made.work_pool_name, made.job_variables) == ("others", {})
    assert made.parameters == {**LISTED["parameters"], "overrides": ["gate.approval=human"]}
    schedules = {each.slug: each.parameters for each in made.schedules}
    assert schedules == {"own": {"overrides": ["seed=1", "gate.approval=human"]}, "plain": {}}
    assert main(["--file", listed, "--set", "gate.approval=nobody"]) == 2


def test_a_worker_gets_the_secret_that_the_documented_form_names(lasting_server: None) -> None:
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    (form,) = re.findall(r"PGPASSWORD: '(.*)'", text)

    async def resolve() -> Any:
        await Secret(value="of-a-test-only").asave("db", overwrite=True)
        variables = {"env": {"PGPASSWORD": form}}
        template = ProcessWorker.get_default_base_job_template()
        made: Any = await ProcessJobConfiguration.from_template_and_values(template, variables)
        return made.env["PGPASSWORD"]

    assert asyncio.run(resolve()) == "of-a-test-only"


def test_every_pool_that_is_not_there_is_told_before_anything_is_deployed(
    lasting_server: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="there", type="process"))
    pools = {"one": "there", "two": "nowhere", "three": "not here", "four": "nowhere"}
    listed = [{**LISTED, "name": name, "work_pool": {"name": pool}} for name, pool in pools.items()]
    assert main(["--file", write(tmp_path, *listed)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "no work pool nowhere (for retrain/two, retrain/four); not here (for retrain/three)" in said.err
    assert "by `prefect work-pool create nowhere --type TYPE`; `prefect work-pool create 'not here' --type TYPE`" in (
        said.err
    )
    with get_client(sync_client=True) as client:
        made = client.read_deployments(sort=DeploymentSort.NAME_ASC, limit=200)
    assert not pools.keys() & {each.name for each in made}


def test_a_deployment_without_a_pool_and_no_server_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without = {key: value for key, value in LISTED.items() if key != "work_pool"}
    assert main(["--file", write(tmp_path, without)]) == 2
    assert "retrain/lung has no work_pool; name the one whose workers run it" in capsys.readouterr().err
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert main(["--file", write(tmp_path, LISTED)]) == 2
    told = capsys.readouterr().err
    assert "PREFECT_API_URL is not set" in told
    assert "start one by `prefect server start`, or by `make up`" in told
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        assert main(["--file", write(tmp_path, LISTED)]) == 69
    assert "unset" not in capsys.readouterr().err


def test_overrides_for_all_reach_schedules_and_triggers_that_have_their_own() -> None:
    own, plain = {"parameters": {"overrides": ["seed=1"]}}, {"parameters": {"preset": "real"}}
    made = _add_overrides({"schedules": [own, plain], "triggers": [own, plain]}, ["gate.approval=human"])
    assert made["parameters"] == {"overrides": ["gate.approval=human"]}
    for name in ("schedules", "triggers"):
        assert made[name] == [{"parameters": {"overrides": ["seed=1", "gate.approval=human"]}}, plain]
