"""The lock in the store excludes processes on different machines, and outlives a killed holder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from oncoshift.errors import UnavailableError
from oncoshift.registry import lease
from oncoshift.registry.lease import LOCK, LeaseLostError, hold_lease
from oncoshift.registry.processes import identify_machine
from oncoshift.registry.store import open_client
from oncoshift.registry.waiting import patience

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow import MlflowClient


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of its own: a lock in that of other tests would slow them down."""
    return f"sqlite:///{tmp_path_factory.mktemp('leases')}/mlflow.db"


@pytest.fixture
def client(uri: str) -> Iterator[MlflowClient]:
    client = open_client(uri)
    yield client
    for name in list_locks(client):
        client.delete_registered_model(name)


def list_locks(client: MlflowClient) -> list[str]:
    return [model.name for model in client.search_registered_models(filter_string=f"name LIKE '{LOCK}%'")]


def test_one_thread_at_a_time_holds_it(uri: str, client: MlflowClient) -> None:
    inside: list[int] = []
    most = []

    def enter(number: int) -> None:
        with hold_lease(open_client(uri)):
            inside.append(number)
            most.append(len(inside))
            client.search_registered_models()
            inside.remove(number)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(enter, range(6)))
    assert most == [1] * 6
    assert list_locks(client) == [f"{LOCK} 6 free"]


def test_a_holder_that_ended_on_this_machine_is_replaced_at_once(client: MlflowClient) -> None:
    machine = identify_machine()
    client.create_registered_model(f"{LOCK} 7 held {machine}-1-0-aa")  # process 1 started at another time
    with hold_lease(client):
        assert list_locks(client)[0].startswith(f"{LOCK} 8 held {machine}-")
    assert list_locks(client) == [f"{LOCK} 8 free"]


def test_a_holder_elsewhere_is_replaced_when_it_stays_silent(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_registered_model(f"{LOCK} 3 held elsewhere-1-0-aa")
    token = patience.set(0.1)
    try:
        with (
            pytest.raises(UnavailableError, match="process 1 on another machine is changing aliases"),
            hold_lease(client),
        ):
            pass
    finally:
        patience.reset(token)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(lease, "CONFIRM_SECONDS", 0.0)
    with hold_lease(client):
        assert list_locks(client)[0].startswith(f"{LOCK} 4 held ")


def test_a_holder_that_was_suspended_for_too_long_changes_nothing(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.0)
    monkeypatch.setattr(lease, "CONFIRM_SECONDS", 0.0)
    with hold_lease(client) as slow:
        slow.confirm()
        (name,) = list_locks(client)
        client.rename_registered_model(name, f"{LOCK} 2 held elsewhere-1-0-aa")
        with pytest.raises(LeaseLostError, match="another process took the lock"):
            slow.confirm()
    assert list_locks(client) == [f"{LOCK} 2 held elsewhere-1-0-aa"]


def test_of_two_locks_made_at_once_one_remains(client: MlflowClient, tmp_path: Path) -> None:
    client.create_registered_model(f"{LOCK} 0 free")
    client.create_registered_model(f"{LOCK} 5 free")
    with hold_lease(client):
        assert [name.split()[1] for name in list_locks(client)] == ["6"]
