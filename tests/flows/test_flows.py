"""The flow retries the right errors, ends runs in the right state, and checks its command line."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import StateType
from prefect.states import Failed

from flows import retrain as flow_module
from flows.logs import log_errors_in_one_line
from oncoshift.errors import DataError
from oncoshift.registry.decision import Decision
from oncoshift.retraining.recipe import Steps
from oncoshift.retraining.summary import Outcome, Summary
from oncoshift.selection.verdict import Kind, Verdict

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (DataError("one class only"), False),
        (OSError("connection lost"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("a bug, or a library's"), True),
    ],
)
def test_only_what_may_pass_by_itself_is_retried(error: Exception, again: bool) -> None:
    assert flow_module.should_retry(None, None, Failed(data=error)) is again  # type: ignore[arg-type]


def test_every_task_names_a_step_and_is_never_answered_from_a_cache() -> None:
    tasks: list[Any] = list(vars(flow_module.STEPS).values())
    assert [task.name for task in tasks] == [field.name for field in fields(Steps)]
    assert all(task.cache_policy is NO_CACHE for task in tasks)
    assert {task.retries for task in tasks} == {2}


SUMMARY = Summary(
    target="kidney",
    sources=("lung",),
    made_up_data=False,
    seeds=1,
    confidence=0.95,
    rows=(),
    gain=None,
    picked="seed 0",
    verdict=Verdict(Kind.DOUBT, ()),
    findings=(),
    gate=Decision(False, ()),
    model="oncoshift-kidney",
    version="4",
    champion="3",
    run="abc",
    experiment="1",
)


@pytest.mark.parametrize(
    ("outcome", "name", "message"),
    [
        (Outcome(SUMMARY), "Refused", "oncoshift-kidney: the gate says refuse for version 4; version 3 is champion."),
        (
            Outcome(replace(SUMMARY, gate=Decision(True, ()), champion="4")),
            "Promoted",
            "oncoshift-kidney: the gate says promote for version 4; version 4 is champion.",
        ),
        (
            Outcome(replace(SUMMARY, champion=None), 1_795_660_200_000),
            "Unchanged",
            (
                "Nothing was trained: data, settings and code are those of the retraining that ended 2026-11-26 02:30 "
                "UTC; there is no champion."
            ),
        ),
    ],
)
def test_a_run_ends_in_a_state_that_says_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch, outcome: Outcome, name: str, message: str
) -> None:
    for told in ("create_markdown_artifact", "create_link_artifact", "name_run"):
        monkeypatch.setattr(flow_module, told, Mock())
    state = flow_module.publish(outcome)
    assert (state.name, state.message, state.type) == (name, message, StateType.COMPLETED)


def test_a_servers_password_is_in_nothing_that_prefect_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for name in ("create_markdown_artifact", "create_link_artifact", "name_run"):
        monkeypatch.setattr(flow_module, name, lambda *arguments, **options: told.append(f"{arguments} {options}"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@mlflow.example:5000/")
    state = flow_module.publish(Outcome(SUMMARY))
    assert any("http://mlflow.example:5000/#/experiments/1/runs/abc" in line for line in told)
    assert "hunter2" not in "".join([*told, str(state)])


@pytest.mark.filterwarnings("ignore:.*attempted to send logs to the API without a flow run id")
def test_an_error_that_the_user_can_mend_is_logged_once_and_without_traceback(caplog: pytest.LogCaptureFixture) -> None:
    log_errors_in_one_line()
    log_errors_in_one_line()
    for error in (DataError("one class only"), ValueError("a bug")):
        for logger in ("prefect.task_runs", "prefect.flow_runs"):
            try:
                raise error
            except Exception:
                logging.getLogger(logger).exception("Encountered an exception")
    lines = [(record.name, record.getMessage(), record.exc_info is not None) for record in caplog.records]
    assert lines == [
        ("prefect.flow_runs", "error: one class only", False),
        ("prefect.task_runs", "Encountered an exception", True),
        ("prefect.flow_runs", "Encountered an exception", True),
    ]


def test_requests_to_this_machine_go_through_no_proxy() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import flows, urllib.request as u; print(u.proxy_bypass('127.0.0.1'))"],
        cwd=REPOSITORY,
        env=os.environ | {"HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "", "no_proxy": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() in ("1", "True")


def test_a_wrong_setting_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert flow_module.main(["--set", "model.backbone=resnet19"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "error: model.backbone: 'resnet19' is not allowed; must be one of resnet18, resnet50, or timm/NAME, or "
        "hf-hub:OWNER/NAME@COMMIT with all 40 digits of the commit" in line
    )
