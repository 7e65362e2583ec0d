"""Changes of the champion outside oncoshift, as by hand in MLflow's UI: find, record or undo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.errors import RegistryError
from oncoshift.registry.changes import (
    INTENT_TAG,
    UNKNOWN,
    begin_change,
    find_change_outside,
    finish_change,
)
from oncoshift.registry.history import (
    Event,
    choose_time,
    find_last_change,
    get_model,
)
from oncoshift.registry.lock import changing_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient


def find_manual_change(client: MlflowClient, name: str) -> Event | None:
    """Find a change of the champion outside oncoshift that is not in the history; None without one.

    Raises:
        RegistryError: no such model.
    """
    if INTENT_TAG in get_model(client, name).tags:
        return None  # a change of ours is under way, or will be finished by the next one
    return find_change_outside(client, name, find_last_change(client, name), UNKNOWN, "")


def record_manual_change(client: MlflowClient, name: str, reason: str, by: str) -> Event | None:
    """Record a change of the champion outside oncoshift in the history; None without one.

    Raises:
        RegistryError: no such model.
    """
    with changing_aliases(client) as client:
        finish_change(client, name)
        change = find_change_outside(client, name, find_last_change(client, name), by, reason)
        if change is not None:
            begin_change(client, name, change)
        return change


def undo_manual_change(client: MlflowClient, name: str, reason: str, by: str) -> Event | None:
    """Undo a change of the champion outside oncoshift; both are in the history. None without one.

    Raises:
        RegistryError: no such model, or no version in the history to go back to.
    """
    with changing_aliases(client) as client:
        finish_change(client, name)
        last = find_last_change(client, name)
        change = find_change_outside(client, name, last, UNKNOWN, "the alias was moved outside oncoshift")
        if change is None:
            return None
        recorded = last.champion if last else None
        if recorded is None:
            raise RegistryError(
                f"{name}: its history has no champion to go back to; `oncoshift doctor --record` keeps the "
                "present one, and to have none, delete the alias in MLflow's UI"
            )
        undo = Event("undo", recorded, change.champion, by, reason, choose_time(change))
        begin_change(client, name, undo)
        return undo
