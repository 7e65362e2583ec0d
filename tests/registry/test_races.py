"""Promotions, rollbacks and SIGKILL at once leave one champion and a history without gaps.

The whole of it, 200 seeded races on SQLite, on SQLite beside a server's clients, and on PostgreSQL:

    pytest -m slow tests/registry/test_races.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import races
from support.postgresql import making_database


def run_races(uri: str, count: int, *options: str) -> None:
    """Run races in a process of its own, which forks others and so may have no threads."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(races.__file__)), uri, "0", str(count), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": whole") == count


def test_races_with_a_killed_process_on_sqlite(tmp_path: Path) -> None:
    run_races(f"sqlite:///{tmp_path}/mlflow.db", 3)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("lease",)], ids=["file lock", "file lock and lease"])
def test_two_hundred_races_on_sqlite(tmp_path: Path, options: tuple[str, ...]) -> None:
    run_races(f"sqlite:///{tmp_path}/mlflow.db", 200, *options)


@pytest.mark.slow
def test_two_hundred_races_on_postgresql() -> None:
    with making_database() as uri:
        run_races(uri, 200)
