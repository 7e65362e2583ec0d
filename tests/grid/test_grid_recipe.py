"""The grid measures what is missing, a few rows at a time, and one row's error ends it tidily."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from oncoshift.grid import recipe
from oncoshift.grid.recipe import GridPlan, Steps, run_grid
from oncoshift.grid.workers import RowError
from oncoshift.settings import Settings, replace_values

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = replace_values(Settings(), {"paper.workers": 2})


class StillCrew:
    """A crew without processes."""

    def __init__(self, *_: Any) -> None:
        self.stopped = False

    @contextmanager
    def working(self) -> Iterator[StillCrew]:
        yield self
        self.stopped = True

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines of a grid of six rows, the first of which is measured."""
    tasks = [SimpleNamespace(key=f"key{number}", title=f"row {number}") for number in range(6)]
    monkeypatch.setattr(recipe, "open_client", Mock())
    monkeypatch.setattr(recipe, "_plan_tasks", lambda *_: tasks)
    monkeypatch.setattr(recipe, "Tracker", Mock())
    monkeypatch.setattr(recipe, "find_finished_rows", lambda _tracker: {"key0": "run"})
    monkeypatch.setattr(recipe, "Crew", StillCrew)
    return []


def run_with(said: list[str], measure: Any) -> Any:
    plan = GridPlan(Path(), SETTINGS, "sqlite://", "oncoshift paper", said.append)
    results: Any = lambda _plan, tasks: [task.key for task in tasks]  # noqa: E731
    return run_grid(plan, Steps(data=Mock(), row=measure, results=results))


def test_what_is_measured_already_is_not_measured_again(said: list[str]) -> None:
    measured: list[str] = []
    every = run_with(said, lambda _crew, task: measured.append(task.key))
    assert sorted(measured) == [f"key{number}" for number in range(1, 6)]
    assert every == [f"key{number}" for number in range(6)], "the page has them all"
    assert said[0] == "grid: 6 rows, of which 1 are measured already"
    assert said[-1].startswith("grid: 5 of 5 rows")


def test_an_error_ends_the_grid_after_the_rows_in_progress(said: list[str]) -> None:
    begun, ended, other = [], [], threading.Event()

    def measure(_crew: Any, task: Any) -> None:
        begun.append(task.key)
        if task.key == "key1":
            other.wait(30)
            raise RowError("row 1: no tiles")
        other.set()
        threading.Event().wait(0.3)
        ended.append(task.key)

    with pytest.raises(RowError, match="row 1: no tiles"):
        run_with(said, measure)
    assert set(begun) == {"key1", *ended}, "none was left half done"
    assert len(begun) < 5, "none was begun after that"
