"""The schedule's command line: checked before a server starts, and what the runner is told."""

from __future__ import annotations

import pytest
from prefect.schedules import Schedule
from prefect.settings import PREFECT_HOME, temporary_settings

from flows import serve
from oncoshift.files import held


def test_the_schedule_is_a_cron_expression_that_survives_a_restart() -> None:
    told = serve.deployment(serve.parse(["--cron", "*/5 * * * *", "--preset", "real", "--set", "target=lung"]))
    assert told["parameters"] == {"preset": "real", "overrides": ["target=lung"]}
    assert told["concurrency_limit"] == 1
    schedule = told["schedule"]
    assert isinstance(schedule, Schedule)
    assert (schedule.cron, schedule.timezone, schedule.slug) == ("*/5 * * * *", "UTC", "scheduled")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cron", "bad"], "--cron 'bad': Invalid cron string"),
        (["--cron", "99 * * * *"], "--cron '99 * * * *': Invalid cron string"),
        (["--timezone", "Mars/Base"], "--timezone 'Mars/Base': Invalid timezone"),
        (["--name", "a/b"], "--name 'a/b': use letters, digits, dots"),
        (["--preset", "nope"], "--preset nope: unknown"),
        (["--preset", "/etc/hostname.yaml"], "/etc/hostname.yaml"),
        (["--set", "train.lr=-1"], "train.lr: -1 is not allowed"),
        (["--set", "model.weights=${HOME}"], "model.weights=${HOME}"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_starts_no_server(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "project_server", lambda *_, **__: pytest.fail("a server started"))
    assert serve.main(arguments) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith("error: ")
    assert words in said


def test_one_process_serves_a_schedule(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    with temporary_settings({PREFECT_HOME: tmp_path}), held(tmp_path / "serve-scheduled.lock"):
        assert serve.main([]) == 2
    assert "another `python -m flows.serve` serves 'scheduled' here" in capsys.readouterr().err
