"""prefect.yaml means the same here and to Prefect; what is wrong in it is one line at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.utilities.callables import cloudpickle_wrapped_call

from flows.deployments import read_deployments
from oncoshift.errors import SettingsError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_projects_own_list_is_what_prefect_deploy_reads() -> None:
    path = REPOSITORY / "prefect.yaml"
    model = PrefectYamlModel.model_validate(yaml.safe_load(path.read_text()))
    served = read_deployments(path)
    assert [each.name for each in served] == [f"{each.name}/{each.name}" for each in model.deployments]
    assert {each.work_pool.name for each in model.deployments if each.work_pool} == {"process"}
    (retrain,) = (each for each in served if each.flow.name == "retrain")
    assert retrain.options["concurrency_limit"] == 1
    assert [schedule.slug for schedule in retrain.options["schedules"]] == ["nightly"], "which survives a restart"
    assert [getattr(trigger, "expect", None) for trigger in retrain.triggers] == [
        {"oncoshift.drift"},
        {"oncoshift.data"},
    ]


def test_a_copy_of_a_deployment_follows_the_drift_of_its_own_model(tmp_path: Path) -> None:
    (retrain,) = (each for each in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
                  if each["name"] == "retrain")  # fmt: skip
    lung = {**retrain, "name": "retrain-lung", "parameters": {"target": "lung", "sources": ["colon"]}}
    others = {**lung, "name": "all", "triggers": [{"expect": ["oncoshift.drift"], "match": {"id": "*"}}]}
    path = tmp_path / "prefect.yaml"
    path.write_text(yaml.safe_dump({"deployments": [retrain, lung, others]}))
    triggers: list[Any] = [trigger for each in read_deployments(path) for trigger in each.triggers]
    assert [trigger.name for trigger in triggers] == [
        "retrain at drift", "retrain at new data", "retrain-lung at drift", "retrain-lung at new data",
        "all__automation_1",
    ]  # fmt: skip
    of_drift = [trigger.match.root for trigger in triggers if trigger.expect == {"oncoshift.drift"}]
    kidney, own, given = of_drift
    assert kidney == {"prefect.resource.id": "oncoshift.model.oncoshift-kidney"}
    assert own == {"prefect.resource.id": "oncoshift.model.oncoshift-lung"}
    assert given == {"id": "*"}


def test_a_runner_can_send_each_flow_to_a_process_of_its_own() -> None:
    for each in read_deployments(REPOSITORY / "prefect.yaml"):
        cloudpickle_wrapped_call(each.flow)  # raises where something in it cannot be sent


def write(folder: Path, **changes: Any) -> Path:
    deployment = {"name": "lung", "entrypoint": "flows.retrain.retrain", **changes}
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({"deployments": [deployment]}))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedules": [{"cron": "bad"}]}, "cron: Invalid cron string"),
        ({"schedules": [{"cron": "0 2 * * *", "timezone": "Mars/Base"}]}, "timezone: Invalid timezone"),
        ({"schedules": [{"slug": "nightly"}]}, "Unknown schedule type"),
        ({"parameters": {"targt": "lung"}}, "parameter targt: unknown; retrain has target, sources, method"),
        ({"parameters": {"method": "dan"}}, "parameter method: 'dan' is not valid"),
        ({"parameters": {"preset": "nope"}}, "parameter preset: 'nope' is not valid"),
        ({"parameters": {"target": "colon"}}, "target 'colon' is also in sources"),
        ({"parameters": {"overrides": ["train.lr=-1"]}}, "train.lr: -1 is not allowed"),
        ({"parameters": {"overrides": ["model.weights=${HOME}"]}}, "variables are replaced only in files"),
        ({"schedules": [{"cron": "0 2 * * *", "parameters": {"force": "yes"}}]}, "parameter force: 'yes' is not"),
        ({"entrypoint": "flows.retrain.nothing"}, "nothing"),
        ({"entrypoint": "flows.nothing.retrain"}, "flows.nothing"),
        ({"triggers": [{"expect": 1}]}, "expect"),
    ],
)
def test_what_is_wrong_is_one_line(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(SettingsError) as raised:
        read_deployments(path)
    said = str(raised.value)
    assert len(said.splitlines()) == 1
    assert said.startswith(f"{path}, deployment lung: ")
    assert words in said


@pytest.mark.parametrize("text", ["", "deployments", "a: 1", "deployments: [", None])
def test_a_file_that_is_no_list_is_one_line(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "prefect.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=r"^[^\n]*prefect.yaml: [^\n]*$"):
        read_deployments(path)
