"""The schedule's command line is checked before a server starts, and is passed on to the runner."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from prefect.schedules import Schedule
from prefect.settings import PREFECT_HOME, temporary_settings

from flows import serve
from oncoshift.files import hold_lock

if TYPE_CHECKING:
    from pathlib import Path


def test_the_schedule_is_a_cron_expression_that_survives_a_restart() -> None:
    told = serve.build_deployment(
        serve.parse_arguments(["--cron", "*/5 * * * *", "--preset", "real", "--set", "target=lung"])
    )
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
        (["--port", "0"], "--port 0: must be from 1 to 65535"),
        (["--port", "99999"], "--port 99999: must be"),
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
    monkeypatch.setattr(serve, "ensure_server", lambda *_, **__: pytest.fail("a server started"))
    assert serve.main(arguments) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith("error: ")
    assert words in said


def test_one_process_serves_a_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_settings({PREFECT_HOME: tmp_path}), hold_lock(tmp_path / "serve-scheduled.lock"):
        assert serve.main([]) == 2
    assert "another `python -m flows.serve` serves 'scheduled' here" in capsys.readouterr().err


class Handle:
    """A run's process, as Prefect's runner keeps it."""

    def __init__(self) -> None:
        self.asked = 0

    def is_alive(self) -> bool:
        return True

    def graceful_kill(self) -> None:
        self.asked += 1


def test_a_signal_ends_the_runs_before_the_runner_and_is_heeded_however_early_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise Prefect's runner would kill its runs after 30 seconds and overwrite their state."""
    runs, steps = {"a": Handle()}, []
    runner = serve.StoppableRunner(name="test", pause_on_shutdown=False)
    manager = SimpleNamespace(flow_run_ids=lambda: set(runs), get=runs.get)
    runner._process_manager = manager  # type: ignore[assignment]

    async def stop() -> None:
        steps.append("stopped")
        assert not runs, "the runs have ended"

    monkeypatch.setattr(runner, "astop", stop)

    async def signalled() -> None:
        runner._event_loop = asyncio.get_running_loop()
        runner.handle_sigterm()
        runner.handle_sigterm()
        await asyncio.sleep(0.3)
        assert (runs["a"].asked, steps) == (0, []), "it has not started"
        runner.started = True
        await asyncio.sleep(0.5)
        assert (runs["a"].asked, steps) == (1, []), "the run is asked once, and waited for"
        del runs["a"]
        assert runner._stopping is not None
        await runner._stopping

    asyncio.run(signalled())
    assert steps == ["stopped"]
