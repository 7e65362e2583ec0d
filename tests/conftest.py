"""Fixtures that many tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# The same examples in every run: a suite that fails by chance is believed by nobody.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Files of tests share the cores; two torch threads on a busy core wait for one another longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DVC_NO_ANALYTICS", "true")

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def as_many_threads_as_before() -> Iterator[None]:
    """spams, below staintools, sets the OpenMP threads of its whole process, and with them the bits that torch gets."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real tiles and ImageNet weights; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("ONCOSHIFT_SHARED", PROJECT.parent / "shared"))
    if not (folder / "data" / "tiles.csv").is_file():
        pytest.skip(f"real tiles absent: no {folder}/data/tiles.csv; set ONCOSHIFT_SHARED to run this test")
    return folder
