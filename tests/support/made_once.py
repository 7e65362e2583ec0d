"""Folders that take long to fill: one of pytest's processes does, and the others wait for it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def make_once(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder of this name that is filled once in a test run; nobody may change it."""
    base = factory.getbasetemp()
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{made}.lock"):
        if not made.is_dir():
            half = made.with_name(f"{name}.half")
            half.mkdir()
            fill(half)
            half.rename(made)
    return made


def make_prefect_database(factory: pytest.TempPathFactory) -> Path:
    """Make a Prefect server's database: its tables take most of the server's first start."""

    def fill(folder: Path) -> None:
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, env=os.environ | {"PREFECT_HOME": str(folder)}, check=True, capture_output=True)

    return make_once(factory, "prefect-database", fill) / "prefect.db"
