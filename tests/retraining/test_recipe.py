"""The steps run in order and get each other's results, without Prefect, data or a store."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from oncoshift.retraining import recipe
from oncoshift.retraining.recipe import Steps, find_unchanged, retrain, run_steps
from oncoshift.settings import Settings, replace_values

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURED = replace_values(Settings(), {"retrain.seeds": 2, "seed": 5})
TUNED = replace_values(CONFIGURED, {"train.lr": 0.5})


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(recipe, "log_start", Mock())
    monkeypatch.setattr(recipe, "_close", lambda *arguments: arguments)
    return SimpleNamespace(settings=CONFIGURED, recorder=Mock())


def trained(_session: Any, settings: Settings, method: str, number: int) -> Any:
    return SimpleNamespace(job=SimpleNamespace(seed=settings.seed + number), method=method, settings=settings)


def noted(order: list[tuple[str, tuple[Any, ...]]]) -> Steps:
    """Make steps that record their calls; the second seed is the pick."""

    def step(name: str, result: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            order.append((name, arguments))
            return result(*arguments)

        return run

    return Steps(
        data=step("data", lambda _plan: "jobs"),
        choose=step("choose", lambda session: session),
        tune=step("tune", lambda _session: TUNED),
        train=step("train", trained),
        evaluate=step("evaluate", lambda *_: "evaluation"),
        select=step("select", lambda _session, seeds: SimpleNamespace(picked=seeds[1])),
        explain=step("explain", lambda *_: None),
        register=step("register", lambda *_: "7"),
        gate=step("gate", lambda *_: "decision"),
    )


def test_steps_follow_one_another_with_what_came_before(session: Any) -> None:
    order: list[tuple[str, tuple[Any, ...]]] = []
    closed: Any = run_steps(session, noted(order))  # see the fixture
    _, evaluation, selection, version, decision = closed
    names = [name for name, _ in order]
    assert names == ["choose", "tune", *["train"] * 4, "evaluate", "select", "explain", "register", "gate"]
    assert [arguments[2:] for name, arguments in order if name == "train"] == [
        ("erm", 0), ("erm", 1), ("dann", 0), ("dann", 1),
    ]  # fmt: skip
    assert all(arguments[1] is TUNED for name, arguments in order if name == "train")
    assert (evaluation, version, decision) == ("evaluation", "7", "decision")
    _, judged, control, picked = order[-1][1]
    assert (judged, picked) == ("7", selection)
    assert (control.method, control.job.seed, selection.picked.method) == ("erm", 6, "dann"), "the pick's seed"


def test_an_error_in_a_step_ends_the_retrainings_run(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, result in {"check_stores": None, "open_session": session, "find_previous_outcome": None}.items():
        monkeypatch.setattr(recipe, name, lambda *_, result=result: result)
    error = OSError("disk full")
    steps = Mock(choose=Mock(side_effect=error))
    with pytest.raises(OSError, match="disk full"):
        retrain(Mock(forced="", **{"settings.tracking.wait_minutes": 0}), steps)
    session.recorder.end.assert_called_once_with(error)


def test_where_nothing_has_changed_no_step_is_taken_but_the_data(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Mock()
    for name, result in {"check_stores": None, "open_session": session, "find_previous_outcome": outcome}.items():
        monkeypatch.setattr(recipe, name, lambda *_, result=result: result)
    order: list[tuple[str, tuple[Any, ...]]] = []
    assert retrain(Mock(forced="", **{"settings.tracking.wait_minutes": 0}), noted(order)) is outcome
    assert [name for name, _ in order] == ["data"]


def test_to_find_that_nothing_has_changed_takes_no_torch_and_no_prefect() -> None:
    look = "import sys, oncoshift.retraining.recipe; print(sorted({'torch', 'prefect'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("forced", ["", "20261126T120000"])
def test_there_may_be_something_to_do_where_data_are_not_current_or_force_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, forced: str
) -> None:
    monkeypatch.setattr(recipe, "is_data_current", lambda _plan: bool(forced))
    monkeypatch.setattr(recipe, "open_jobs", Mock(side_effect=AssertionError("no further look is needed")))
    assert find_unchanged(Mock(forced=forced)) is None
