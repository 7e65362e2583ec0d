"""A lock that holds between machines, in any MLflow store: for servers, which share no file system.

MLflow's REST API has one compare-and-set: renaming a registered model fails unless the model still
has its old name. So the lock is a registered model, `oncoshift.lock <turn> free`. A process takes
it by renaming it to `oncoshift.lock <turn + 1> held <holder>`, and the database lets one process
win. The turn grows with each holder and orders them, as a fencing token does.

A holder that was killed leaves the model held. Others on its machine see that its process is gone;
others elsewhere see that nothing has changed for `LEASE_SECONDS` by their own clock, so clocks
need not agree. Either way the next holder renames the model, by its exact name. A process that was
only suspended for so long notices before its next write: see `Lease.confirm`.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from oncoshift.errors import OncoshiftError, RegistryError
from oncoshift.registry.processes import identify_machine, read_start
from oncoshift.registry.waiting import retry_while_transient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

LOCK = "oncoshift.lock"
"""First word of the registered model's name."""

LEASE_SECONDS = 180.0
"""A holder that has not confirmed its lease for so long counts as dead.

A write comes at most `CONFIRM_SECONDS` after a confirmation, is tried again for a minute, and its
last attempt may take another.
"""

CONFIRM_SECONDS = 30.0

_FREE = "free"
_NAME = re.compile(rf"{re.escape(LOCK)} (\d+) (?:{_FREE}|held (\S+)-(\d+)-(\d+)-\S+)")
_NOTE = "The lock under which oncoshift changes aliases; there is no model in it. Confirmed"


class LeaseLostError(RegistryError):
    """This process was suspended for so long that another one has taken the lock."""


class _HeldError(Exception):
    """Another process holds the lock."""


@dataclass(frozen=True)
class _Lock:
    """The lock as the store has it.

    Attributes:
        name: name of the registered model.
        turn: number of holders so far.
        holder: machine, process id and start time of the holder; None if free.
        confirmed: text that changes whenever the holder confirms its lease.
    """

    name: str
    turn: int
    holder: tuple[str, int, int] | None
    confirmed: str


class Lease:
    """The held lock.

    Args:
        client: client of the store.
        name: name of the registered model while this process holds it.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self._name = client, name
        self._confirmed = time.monotonic()

    def confirm(self) -> None:
        """Make sure that the lock is still held, before a write; asks the store once in a while.

        Raises:
            LeaseLostError: another process has taken it.
        """
        began = time.monotonic()
        if began - self._confirmed < CONFIRM_SECONDS:
            return
        try:
            self._client.update_registered_model(self._name, f"{_NOTE} {time.time():.3f}")
        except MlflowException as error:
            raise LeaseLostError("another process took the lock; nothing more is changed, try again") from error
        self._confirmed = began

    def release(self) -> None:
        """Free the lock; if another process has taken it, it stays with that one."""
        turn = _parse(self._name).turn
        self._client.rename_registered_model(self._name, f"{LOCK} {turn} {_FREE}")


def is_lock_in_use(client: MlflowClient) -> bool:
    """Tell whether any process has ever used the store's lock, so that all must."""
    return bool(_list_locks(client))


def find_dead_lock(client: MlflowClient) -> str | None:
    """Find a lock whose holder on this machine has ended; the next change would take it over."""
    return next((lock.name for lock in _list_locks(client) if lock.holder is not None and _is_gone(lock.holder)), None)


def free_dead_lock(client: MlflowClient) -> None:
    """Free the lock of a holder that has ended."""
    if (name := find_dead_lock(client)) is not None:
        Lease(client, name).release()


@contextmanager
def hold_lease(client: MlflowClient) -> Iterator[Lease]:
    """Hold the store's lock during the block.

    Raises:
        UnavailableError: others hold it for too long.
    """
    watch = _Watch()
    name = retry_while_transient(
        lambda: _take(client, watch),
        lambda error: str(error) if isinstance(error, _HeldError) else None,
        LEASE_SECONDS + 30,
    )
    lease = Lease(client, name)
    try:
        yield lease
    finally:
        with suppress(MlflowException, OncoshiftError):  # then it expires
            lease.release()


class _Watch:
    """For how long a lock has not changed, by this process's own clock."""

    def __init__(self) -> None:
        self._seen, self._since = ("", ""), 0.0

    def has_expired(self, lock: _Lock) -> bool:
        now = (lock.name, lock.confirmed)
        if now != self._seen:
            self._seen, self._since = now, time.monotonic()
        return time.monotonic() - self._since > LEASE_SECONDS


def _take(client: MlflowClient, watch: _Watch) -> str:
    """Take the lock and return its name, or raise `_HeldError`."""
    locks = _list_locks(client)
    if not locks:
        with suppress(MlflowException):  # another process makes it at the same time
            client.create_registered_model(f"{LOCK} 0 {_FREE}", description=_NOTE)
        locks = _list_locks(client)
    lock = max(locks, key=lambda each: each.turn)
    if lock.holder is not None and not _is_gone(lock.holder) and not watch.has_expired(lock):
        machine, process, _ = lock.holder
        where = "this machine" if machine == identify_machine() else "another machine"
        raise _HeldError(f"the registry: process {process} on {where} is changing aliases")
    name = f"{LOCK} {lock.turn + 1} held {_identify_process()}"
    try:
        client.rename_registered_model(lock.name, name)
    except (MlflowException, RegistryError) as error:
        if isinstance(error, MlflowException) and error.error_code == "PERMISSION_DENIED":
            raise
        if not _exists(client, name):  # else only the answer was lost
            raise _HeldError("the registry: other processes are changing aliases") from error
    _settle(client, name)
    return name


def _settle(client: MlflowClient, name: str) -> None:
    """Make sure that the taken lock is the only one: at its first use, two may have been created.

    Raises:
        _HeldError: another one has come as far; this one is removed.
    """
    others = [lock for lock in _list_locks(client) if lock.name != name]
    if any(lock.turn >= _parse(name).turn for lock in others):
        client.delete_registered_model(name)
        raise _HeldError("the registry: other processes are changing aliases")
    for lock in others:
        with suppress(MlflowException):
            client.delete_registered_model(lock.name)


def _list_locks(client: MlflowClient) -> list[_Lock]:
    found = client.search_registered_models(filter_string=f"name LIKE '{LOCK} %'")
    return [_parse(model.name, model.description or "") for model in found if _NAME.fullmatch(model.name)]


def _parse(name: str, description: str = "") -> _Lock:
    match = _NAME.fullmatch(name)
    if match is None:
        raise RegistryError(f"registered model {name!r}: not a lock of oncoshift; rename it")
    turn, machine, process, started = match.groups()
    holder = None if machine is None else (machine, int(process), int(started))
    return _Lock(name, int(turn), holder, description)


def _exists(client: MlflowClient, name: str) -> bool:
    return any(lock.name == name for lock in _list_locks(client))


def _identify_process() -> str:
    """Identify this process and this hold: machine, process id, start time, random digits."""
    process = os.getpid()
    return f"{identify_machine()}-{process}-{read_start(process) or 0}-{secrets.token_hex(4)}"


def _is_gone(holder: tuple[str, int, int]) -> bool:
    """Tell whether a holder is a process of this machine that has ended."""
    machine, process, started = holder
    return machine == identify_machine() and read_start(process) != started
