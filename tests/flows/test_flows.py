"""The wiring: which errors are retried, what the schedule is, what the command line says."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from prefect.cache_policies import NO_CACHE
from prefect.schedules import Schedule
from prefect.states import Failed

from flows import retrain as flow_module
from flows import serve
from oncoshift.errors import DataError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("error", "again"), [(DataError("one class only"), False), (OSError("connection lost"), True)])
def test_only_what_may_pass_by_itself_is_retried(error: Exception, again: bool) -> None:
    assert flow_module.may_pass(None, None, Failed(data=error)) is again  # type: ignore[arg-type]


def test_every_task_names_a_step_and_is_never_answered_from_a_cache() -> None:
    tasks = [flow_module.data, flow_module.tune, flow_module.train, flow_module.evaluate, flow_module.explain]
    tasks += [flow_module.select, flow_module.register, flow_module.gate]
    names = ["data", "tune", "train", "evaluate", "explain", "select", "register", "gate"]
    assert [task.name for task in tasks] == names
    assert all(task.cache_policy is NO_CACHE for task in tasks)
    assert {task.retries for task in tasks} == {2}


def test_the_schedule_is_a_cron_expression_that_survives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    served: dict[str, object] = {}
    monkeypatch.setattr(flow_module.retrain, "serve", lambda **arguments: served.update(arguments))
    monkeypatch.setattr(serve, "prefect_server", lambda _port: nullcontext())
    assert serve.main(["--cron", "*/5 * * * *", "--preset", "real", "--set", "target=lung"]) == 0
    assert served["pause_on_shutdown"] is False
    assert served["parameters"] == {"preset": "real", "overrides": ["target=lung"]}
    schedule = served["schedule"]
    assert isinstance(schedule, Schedule)
    assert (schedule.cron, schedule.timezone) == ("*/5 * * * *", "UTC")


def test_a_wrong_setting_is_one_line_and_exit_code_2() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "flows.retrain", "--set", "model.backbone=resnet19"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "error: model.backbone: 'resnet19' is not allowed; input should be 'resnet18' or 'resnet50'" in run.stderr
