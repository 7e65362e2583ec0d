"""A real MLflow store in a temporary folder, made once, since MLflow's migrations take seconds."""

from __future__ import annotations

import itertools
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event
from support.tiny_package import make_package

from oncoshift.registry.tracking import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient

    from oncoshift.registry.folder import Package


@event.listens_for(Engine, "connect")
def _write_without_waiting_for_the_disk(connection: Any, _: object) -> None:
    """Processes die in these tests, and the machine does not: an fsync would only cost time."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="session", autouse=True)
def _exports(exports_made_once: None) -> None:
    """Nearly all tests here register the same network."""


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="session")
def tracker(uri: str) -> Tracker:
    return Tracker(uri, "tests", tags={"mlflow.source.git.commit": "abc"})


@pytest.fixture(scope="session")
def unique() -> Callable[[str], str]:
    """A function that makes names unique among tests, as all share one store."""
    numbers = itertools.count()
    return lambda prefix: f"{prefix}-{next(numbers)}"


@pytest.fixture(scope="session", name="make_package")
def _make_package() -> Callable[[str], Package]:
    return make_package


@pytest.fixture
def client(tracker: Tracker) -> MlflowClient:
    return tracker.client


@pytest.fixture
def make_model(client: MlflowClient, unique: Callable[[str], str]) -> Callable[[], str]:
    """A function that makes a registered model with three versions, none of them live."""

    def make() -> str:
        name = unique("oncoshift-organ")
        client.create_registered_model(name)
        for _ in range(3):
            client.create_model_version(name, "file:///nowhere", run_id="0" * 32)
        return name

    return make


@pytest.fixture
def name(make_model: Callable[[], str]) -> str:
    return make_model()
