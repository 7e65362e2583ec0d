"""Processes that measure rows: errors and kills are reported by row; none outlives its parent."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from oncoshift.errors import TrainingInterrupted
from oncoshift.grid import workers
from oncoshift.grid.explain import ModelToExplain
from oncoshift.grid.rows import Pool, Row
from oncoshift.grid.workers import Crew, RowError, RowTask, read_task
from oncoshift.retraining.children import Child
from oncoshift.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def make_task(folder: Path) -> RowTask:
    row = Row(Pool("lung", ("colon", "breast")), "single", "none", organ="colon")
    return RowTask(row, "key", folder, folder, Settings(), "sqlite:///none.db", "paper", 1)


def use_script(monkeypatch: pytest.MonkeyPatch, script: str) -> list[Child]:
    """Have workers run a shell script; return those that were started."""
    started: list[Child] = []

    class Scripted(Child):
        def __init__(self, *_: Any) -> None:
            self.number = 1
            self.process = subprocess.Popen(
                ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            started.append(self)

    monkeypatch.setattr(workers, "Child", Scripted)
    return started


def test_a_task_survives_its_journey(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    assert read_task(json.loads(json.dumps(task.to_json()))) == task
    model = ModelToExplain(task.row, 1, "single-s1", ("a", "b"), {"least-certain": ("c",)}, ("kidney",))
    explaining = replace(task, model=model)
    assert read_task(json.loads(json.dumps(explaining.to_json()))) == explaining


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            """while read t; do echo '{"say": "on it"}'; echo '{"end": "no tiles", "code": 2}'; done""",
            "colon alone.*no tiles",
        ),
        ("read t; kill -9 $$", "colon alone.*killed by SIGKILL.*start it again"),
        ("read t; exit 3", "ended with code 3"),
    ],
)
def test_what_ends_a_row_is_an_error_with_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, message: str
) -> None:
    use_script(monkeypatch, script)
    said: list[str] = []
    with Crew(1, 1, said.append).working() as crew:
        for _ in range(2):  # the place is free again, and a process that has ended is replaced
            with pytest.raises(RowError, match=message):
                crew.do(make_task(tmp_path))
    assert set(said) <= {"on it"}


def test_a_worker_that_answers_nonsense_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = use_script(monkeypatch, """while read t; do echo 'View run at http'; echo '{"end": ""}'; done""")
    with Crew(1, 1, print).working() as crew:
        for _ in range(2):
            with pytest.raises(json.JSONDecodeError):
                crew.do(make_task(tmp_path))
    assert len(started) == 2, "what the first still said would be taken for the second row's answer"


def test_after_a_stop_no_process_is_started_and_rows_are_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = use_script(monkeypatch, "read t; sleep 60")
    ended: list[BaseException] = []
    crew = Crew(1, 1, print)

    def ask() -> None:
        try:
            crew.do(make_task(tmp_path))
        except TrainingInterrupted as error:
            ended.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not started:
        time.sleep(0.01)
    crew.stop()
    for thread in threads:
        thread.join(60)
    assert len(started) == 1
    assert len(ended) == 2


def test_a_worker_that_was_asked_to_stop_is_no_failed_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_script(monkeypatch, "read t; exit 75")
    with Crew(1, 1, print).working() as crew, pytest.raises(TrainingInterrupted):
        crew.do(make_task(tmp_path))


def test_what_libraries_print_is_no_answer() -> None:
    script = "from oncoshift.grid.workers import _take_stdout; a = _take_stdout(); print('run'); print('{}', file=a)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"
    assert "run" in done.stderr


def test_a_worker_ends_when_its_parent_is_gone() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "oncoshift.grid.workers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.close()
    try:
        assert process.wait(60) == 75
    finally:
        process.kill()
        process.wait()
