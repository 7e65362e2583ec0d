"""A study whose workers all end early reports what to do; each worker searches what was chosen."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from oncoshift.layout import Layout
from oncoshift.retraining import workers
from oncoshift.retraining.children import Child
from oncoshift.retraining.session import RetrainingPlan
from oncoshift.settings import Settings
from oncoshift.tuning.worker import Budget

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("endings", "code"),
    [
        (("kill -9 $$", "kill -9 $$"), 75),
        (("kill -9 $$", "exit 69"), 69),
        (("exit 2", "exit 2"), 2),
        (("exit 1", "kill -9 $$"), 2),
    ],
)
def test_a_study_whose_workers_were_killed_is_to_be_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endings: tuple[str, str], code: int
) -> None:
    class Worker(Child):
        def __init__(self, module: str, number: int, gpus: int) -> None:  # noqa: ARG002 - as the real one's
            self.number = number
            command = ["sh", "-c", f"read task; {endings[number - 1]}"]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(workers, "Child", Worker)
    settings = Settings()
    plan = RetrainingPlan(tmp_path, Layout(tmp_path), settings, "", "", lambda _line: None)
    session = SimpleNamespace(plan=plan, key="key")
    search = SimpleNamespace(settings=settings, tune=settings.tune, study=SimpleNamespace(finished=0))
    with pytest.raises(workers.TuningError, match="start it again") as raised:
        workers.run_workers(cast("Any", session), cast("Any", search), "run", Budget(4), 2)
    assert raised.value.exit_code == code


def test_a_worker_searches_the_chosen_method_on_the_chosen_variant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    searched: list[tuple[object, ...]] = []

    class Recorder:
        def open_nested(self, run: str) -> str:
            return run

    class Jobs:
        def on_variant(self, variant: str) -> str:
            return f"jobs on {variant}"

    class Search:
        def __init__(self, settings: Settings, _tune: Any, jobs: str, *_: Any) -> None:
            searched.append((settings.train.method, settings.train.variant, settings.retrain.left_out, jobs))

        def work(self, *_: Any) -> None:
            """Do nothing."""

    session = SimpleNamespace(key="key", jobs=Jobs(), recorder=Recorder())
    monkeypatch.setattr(workers, "open_jobs", lambda _plan: None)
    monkeypatch.setattr(workers, "open_session", lambda _plan, _jobs: session)
    monkeypatch.setattr(workers, "Search", Search)
    settings = Settings()
    assert (settings.train.method, settings.train.variant) != ("mcc", "reinhard")
    workers.run_task(
        workers.WorkerTask(
            str(tmp_path), str(tmp_path), settings.model_dump(mode="json"), "mcc", "reinhard", ["breast"],
            settings.tune.model_dump(mode="json"), "sqlite://", "", "key", "run", None, 1,
        )
    )  # fmt: skip
    assert searched == [("mcc", "reinhard", ("breast",), "jobs on reinhard")]
