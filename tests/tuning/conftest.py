"""Study databases, and workers in their own processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WORKER = """
import pathlib, sys, time
from oncoshift.tuning.space import build_search_space
from oncoshift.tuning.study import SharedStudy
from oncoshift.tuning.worker import Budget, work

url, folder, trials, seconds = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
first = {"train.lr": 0.01, "dann.max_lambda": 0.33}

def trial(plan):
    with (folder / "begun").open("a") as file:
        file.write(f"{plan.number} {plan.values['train.lr']!r}\\n")
    time.sleep(seconds)
    return (plan.values["train.lr"],)

work(SharedStudy(url, "s", 1), build_search_space(first), first, Budget(trials), trial, print)
"""


SERVER = os.environ.get("ONCOSHIFT_TEST_POSTGRESQL")
"""URL of a PostgreSQL server for test databases; without it, only SQLite is tested."""


@pytest.fixture(params=["sqlite", "postgresql"] if SERVER else ["sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/optuna.db"
        return
    engine = create_engine(str(SERVER), isolation_level="AUTOCOMMIT")
    name = f"oncoshift_test_{os.getpid()}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield engine.url.set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@dataclass
class Workers:
    """Processes that work on study `s` of a database, with trials that only sleep.

    Attributes:
        url: URL of the database.
        folder: Folder whose file `begun` lists number and learning rate of each started trial.
        processes: All started processes.
    """

    url: str
    folder: Path
    processes: list[subprocess.Popen[bytes]]

    def start(self, trials: int, seconds: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, self.url, str(self.folder), str(trials), str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def begun(self) -> list[tuple[int, float]]:
        """List number and learning rate of each trial that started."""
        path = self.folder / "begun"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(number), float(lr)) for number, lr in (line.split() for line in lines)]

    def wait_until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < deadline, f"never reached; begun: {self.begun()}"
            time.sleep(0.05)

    def wait(self) -> None:
        """Wait for the processes; each must succeed unless it was killed."""
        assert {process.wait(timeout=120) for process in self.processes} <= {0, -signal.SIGKILL}


@pytest.fixture
def workers(storage: str, tmp_path: Path) -> Iterator[Workers]:
    started = Workers(storage, tmp_path, [])
    yield started
    for process in started.processes:
        process.kill()
        process.wait()
