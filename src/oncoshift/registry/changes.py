"""Changes of the champion, each made whole or finished later, and recorded once.

MLflow moves one alias at a time, and a change of the champion moves three. So the change is first
recorded as a tag of the registered model (a write-ahead intent), then made, and then the tag is
removed. `finish_change` finishes one that a killed process left. At every moment the alias champion
names the version that was champion before the change or is after it.

Callers hold `lock.changing_aliases`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from oncoshift.errors import RegistryError
from oncoshift.registry.audit import append_line
from oncoshift.registry.history import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    WITHDRAWN_TAG,
    Event,
    choose_time,
    find_last_change,
    get_model,
    get_version,
    read_aliases,
    record_event,
)
from oncoshift.registry.times import add_time

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from oncoshift.registry.history import Kind

INTENT_TAG = "oncoshift.intent"

UNKNOWN = "unknown"
"""Who made a change outside oncoshift."""


def finish_change(client: MlflowClient, name: str) -> Event | None:
    """Finish a change that a killed process left incomplete; return it, or None without one.

    Raises:
        RegistryError: no such model, or the version that was to become champion was deleted.
    """
    intent = get_model(client, name).tags.get(INTENT_TAG)
    if intent is None:
        return None
    event = Event(**json.loads(intent))
    try:
        get_version(client, name, event.version)
    except RegistryError as error:
        raise RegistryError(
            f"{name}: a change to version {event.version} was left incomplete, and that version is deleted; "
            f"set the aliases by hand and delete the model's tag {INTENT_TAG}"
        ) from error
    _complete_change(client, name, event)
    return event


def read_last_change(client: MlflowClient, name: str) -> Event | None:
    """Read the champion's last change, after recording one outside oncoshift; None without one.

    So the history has no gap.
    """
    last = find_last_change(client, name)
    reason = "the alias was moved outside oncoshift, noticed before the next change"
    change = find_change_outside(client, name, last, UNKNOWN, reason)
    if change is None:
        return last
    begin_change(client, name, change)
    return change


def find_change_outside(client: MlflowClient, name: str, last: Event | None, by: str, reason: str) -> Event | None:
    """Find a change of the champion that the history does not have; None without one.

    Args:
        client: client of the registry.
        name: name of the registered model.
        last: last change of the champion in the history, if there is one.
        by: person or program to name in the event.
        reason: reason to name in the event.
    """
    recorded, live = last.champion if last else None, read_aliases(client, name).get(CHAMPION)
    if live is not None and live != recorded:
        return Event("manual", live, recorded, by, reason, choose_time(last))
    if live is None and recorded is not None:
        return Event("removed", recorded, recorded, by, reason, choose_time(last))
    return None


def begin_change(client: MlflowClient, name: str, event: Event) -> None:
    """Record the intent of a change, and make it."""
    client.set_registered_model_tag(name, INTENT_TAG, json.dumps(event.to_dict()))
    _complete_change(client, name, event)


def _complete_change(client: MlflowClient, name: str, event: Event) -> None:
    """Make a recorded change; each step can be repeated, however many were done before."""
    if event.kind == "undo":
        undone = _derive_undone(event)
        record_event(client, name, undone)
        append_line(client, name, undone.at, undone.to_dict())
    if event.kind == "challenge":
        client.set_registered_model_alias(name, CHALLENGER, event.version)
    elif event.kind == "manual" and event.replaced is not None:
        client.set_registered_model_alias(name, PREVIOUS, event.replaced)
    elif event.kind in ("promote", "rollback", "undo"):
        _move_champion(client, name, event)
    record_event(client, name, event)
    append_line(client, name, event.at, event.to_dict())
    client.delete_registered_model_tag(name, INTENT_TAG)


def _derive_undone(undo: Event) -> Event:
    """Derive the change outside oncoshift that an event undoes, which the history lacks."""
    kind: Kind = "removed" if undo.replaced is None else "manual"
    at, version = add_time(undo.at, microseconds=-1), undo.replaced or undo.version
    return Event(kind, version, undo.version, UNKNOWN, "the alias was moved outside oncoshift", at)


def _move_champion(client: MlflowClient, name: str, event: Event) -> None:
    """Move the aliases of a promotion, a rollback or an undoing.

    `previous` moves before `champion`: killed between the two, the champion is still the old one.
    """
    if event.replaced is not None and event.kind != "undo":
        if event.kind == "rollback":
            client.set_model_version_tag(name, event.replaced, WITHDRAWN_TAG, event.reason)
        client.set_registered_model_alias(name, PREVIOUS, event.replaced)
    client.set_registered_model_alias(name, CHAMPION, event.version)
    aliases = read_aliases(client, name)
    for other in (CHALLENGER, PREVIOUS):
        if aliases.get(other) == event.version:
            client.delete_registered_model_alias(name, other)
    if WITHDRAWN_TAG in get_version(client, name, event.version).tags:
        client.delete_model_version_tag(name, event.version, WITHDRAWN_TAG)
