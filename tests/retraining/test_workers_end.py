"""A study whose workers all end early reports what to do."""

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
