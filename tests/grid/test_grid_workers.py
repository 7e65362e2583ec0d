"""Processes that measure rows: errors and kills are reported by row; none outlives its parent."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from oncoshift.grid import workers
from oncoshift.grid.rows import Pool, Row
from oncoshift.grid.workers import Crew, RowError, RowTask, read_task
from oncoshift.retraining.children import Child
from oncoshift.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def make_task(folder: Path) -> RowTask:
    row = Row(Pool("lung", ("colon", "breast")), "single", "none", organ="colon")
    return RowTask(row, "key", folder, folder, Settings(), "sqlite:///none.db", "paper", 1)


def test_a_task_survives_its_journey(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    assert read_task(json.loads(json.dumps(task.to_json()))) == task


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("""while read t; do echo '{"say": "on it"}'; echo '{"end": "no tiles"}'; done""", "colon alone.*no tiles"),
        ("read t; kill -9 $$", "colon alone.*killed by SIGKILL; start it again"),
        ("read t; exit 3", "ended with code 3"),
    ],
)
def test_what_ends_a_row_is_an_error_with_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, message: str
) -> None:
    class Scripted(Child):
        def __init__(self, *_: Any) -> None:
            self.number = 1
            self.process = subprocess.Popen(
                ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

    monkeypatch.setattr(workers, "Child", Scripted)
    said: list[str] = []
    with Crew(1, 1, said.append).working() as crew:
        for _ in range(2):  # the place is free again, and a process that has ended is replaced
            with pytest.raises(RowError, match=message):
                crew.measure(make_task(tmp_path))
    assert set(said) <= {"on it"}


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
