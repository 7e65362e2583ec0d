"""One process serves a project, and at a signal lets its runs end before it ends itself."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from flows import serve
from oncoshift.files import hold_lock

if TYPE_CHECKING:
    from pathlib import Path


def test_one_process_serves_a_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_settings({PREFECT_HOME: tmp_path}), hold_lock(tmp_path / "serve.lock"):
        assert serve.main([]) == 2
    assert "another `python -m flows.serve` serves" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "99999"])
def test_a_port_that_is_none_is_said_before_a_server_starts(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--port", port]) == 2
    assert capsys.readouterr().err == f"error: --port {port}: must be from 1 to 65535\n"


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
    runs, begun, steps = {"a": Handle()}, {"a"}, []
    monkeypatch.setattr(serve, "is_alive", begun.__contains__)
    runner = serve.StoppableRunner(name="test", pause_on_shutdown=False)
    manager = SimpleNamespace(flow_run_ids=lambda: set(runs), get=runs.get)
    runner._process_manager = manager  # type: ignore[assignment]
    runner._scheduled_run_poller = poller = SimpleNamespace(stopping=False)  # type: ignore[assignment]

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
        assert poller.stopping, "no other run starts"
        runs["late"] = Handle()
        await asyncio.sleep(0.5)
        assert (runs["late"].asked, runs["a"].asked) == (0, 1), "but one that was about to, which would be Crashed now"
        begun.add("late")
        await asyncio.sleep(0.5)
        assert (runs["late"].asked, runs["a"].asked) == (1, 1), "and is Stopped later"
        runs.clear()
        assert runner._stopping is not None
        await runner._stopping

    asyncio.run(signalled())
    assert steps == ["stopped"]
