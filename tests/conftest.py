"""Fixtures that many tests share."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Use the same examples in every run, however busy the machine is: nobody trusts a suite that fails
# by chance.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Test files share the cores, and two torch threads on a busy core wait for each other longer than
# they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Else each of MLflow's servers starts nine more processes, for jobs that nothing here asks for.
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DVC_NO_ANALYTICS", "true")
# Else each of the hundreds of processes that tests start would compile the whole package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

SIGTERM_HANDLER = signal.getsignal(signal.SIGTERM)
PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """The handler of SIGTERM that pytest began with, for each test: commands set their own.

    So do commands that fixtures of a module run, before this one.
    """
    signal.signal(signal.SIGTERM, SIGTERM_HANDLER)
    yield
    signal.signal(signal.SIGTERM, SIGTERM_HANDLER)


@pytest.fixture(autouse=True)
def as_many_threads_as_before() -> Iterator[None]:
    """torch's thread count, restored after each test.

    spams, which staintools uses, sets the OpenMP threads of the whole process, and torch's results
    depend on them to the bit.
    """
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A function that makes a new PREFECT_HOME with the database that a server would make there."""
    from support.made_once import make_prefect_database

    database = make_prefect_database(tmp_path_factory)

    def make() -> Path:
        home = tmp_path_factory.mktemp("prefect")
        shutil.copy(database, home)
        return home

    return make


@pytest.fixture(scope="session")
def exports_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exports of equal networks, made once in the session."""
    from support.exports import exporting_once

    with pytest.MonkeyPatch.context() as patch:
        export = exporting_once(tmp_path_factory.mktemp("exports"))
        patch.setattr("oncoshift.registry.artifacts.export_program", export)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real tiles and ImageNet weights; tests that need it are skipped without it."""
    folder = Path(os.environ.get("ONCOSHIFT_SHARED", PROJECT.parent / "shared"))
    if not (folder / "data" / "tiles.csv").is_file():
        pytest.skip(f"real tiles absent: no {folder}/data/tiles.csv; set ONCOSHIFT_SHARED to run this test")
    return folder
