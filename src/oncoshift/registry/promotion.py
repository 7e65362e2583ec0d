"""Promotion and rollback: the aliases challenger, champion and previous of a registered model.

MLflow moves one alias at a time, and a change of the champion moves three. So the change is first
recorded as a tag of the registered model (a write-ahead intent), then made, and then the tag is
removed. `recover` finishes a change that a killed process left; every function here that changes
something calls it first. At every moment the alias champion names the version that was champion
before the change or is after it. A change depends on the champion before it, so processes that
share an embedded store exclude each other by its lock; on a server, only one process at a time may
change the aliases of a model.

MLflow keeps no history of aliases: each change is a tag of the version that it made champion or
challenger.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from mlflow.exceptions import MlflowException

from oncoshift.errors import RegistryError
from oncoshift.registry.client import shorten_error
from oncoshift.registry.store import hold_store
from oncoshift.registry.tracking import quote_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from oncoshift.registry.decision import Decision

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"

INTENT_TAG = "oncoshift.intent"
GATE_TAG = "oncoshift.gate"
GATE_DETAIL_TAG = "oncoshift.gate_detail"
WITHDRAWN_TAG = "oncoshift.withdrawn"
EVENT_TAG = "oncoshift.event."


@dataclass(frozen=True)
class Event:
    """A change of the champion, or a new challenger.

    Attributes:
        kind: kind of the change.
        version: version that became champion or challenger.
        replaced: champion before; None if there was none, or for a challenger.
        by: person or program that made the change.
        reason: reason that was given.
        at: time, ISO 8601 in UTC.
    """

    kind: Literal["challenge", "promote", "rollback"]
    version: str
    replaced: str | None
    by: str
    reason: str
    at: str


@dataclass(frozen=True)
class VersionRow:
    """One version in a listing.

    Attributes:
        version: its number.
        aliases: its present aliases.
        gate: promote, refuse, or empty without a decision of the gate.
        withdrawn: why it was rolled back, or empty.
        created: time of registration, ISO 8601 in UTC.
        run_id: id of the run that made it.
        events: its history, oldest first.
    """

    version: str
    aliases: tuple[str, ...]
    gate: str
    withdrawn: str
    created: str
    run_id: str
    events: tuple[Event, ...]


def record_decision(client: MlflowClient, name: str, version: str | int, decision: Decision) -> None:
    """Record the gate's decision with the version, for `promote` to respect."""
    client.set_model_version_tag(name, str(version), GATE_DETAIL_TAG, json.dumps(decision.to_dict()))
    client.set_model_version_tag(name, str(version), GATE_TAG, decision.action)


def set_challenger(client: MlflowClient, name: str, version: str | int, reason: str, by: str) -> None:
    """Make a version the challenger, unless it is already challenger or champion.

    Raises:
        RegistryError: no such model or version.
    """
    with _changing_aliases(client):
        _recover(client, name)
        aliases = _read_aliases(client, name)
        target = _get_version(client, name, version)
        version, known = str(target.version), _read_events(target)
        if version in (aliases.get(CHALLENGER), aliases.get(CHAMPION)):
            return
        if not known or known[-1].kind != "challenge":  # else a killed process recorded it without setting the alias
            _record_event(client, name, Event("challenge", version, None, by, reason, _format_now()))
        client.set_registered_model_alias(name, CHALLENGER, version)


def promote(client: MlflowClient, name: str, version: str | int, reason: str, by: str, *, force: bool = False) -> bool:
    """Make a version champion and the present champion previous, unless it already is champion.

    Args:
        client: client of the registry.
        name: name of the registered model.
        version: version to promote.
        reason: reason, for the history.
        by: person or program, for the history.
        force: whether to promote a version that the gate refused or that was rolled back.

    Returns:
        Whether this made it champion; False if it already was, and nothing is recorded.

    Raises:
        RegistryError: no such model or version, or the version is refused or withdrawn.
    """
    with _changing_aliases(client):
        finished = _recover(client, name)
        champion = _read_aliases(client, name).get(CHAMPION)
        target = _get_version(client, name, version)
        version, tags = str(target.version), target.tags
        if version == champion:
            return finished is not None and finished.kind == "promote"  # asked again after a crash
        if not force and tags.get(GATE_TAG) == "refuse":
            raise RegistryError(f"{name} version {version}: the gate refused it; its tag {GATE_DETAIL_TAG} says why")
        if not force and WITHDRAWN_TAG in tags:
            why = tags[WITHDRAWN_TAG]
            raise RegistryError(f"{name} version {version}: was rolled back ({why}); force it to go back")
        _begin_change(client, name, Event("promote", version, champion, by, reason, _format_now()))
        return True


def rollback(client: MlflowClient, name: str, reason: str, by: str) -> str:
    """Swap champion and previous; `promote` refuses the withdrawn version unless forced.

    Returns:
        The version that is champion now.

    Raises:
        RegistryError: no such model, or no previous champion.
    """
    with _changing_aliases(client):
        finished = _recover(client, name)
        if finished is not None and finished.kind == "rollback":
            return finished.version  # asked again after a crash: swapping once more would undo it
        aliases = _read_aliases(client, name)
        previous = aliases.get(PREVIOUS)
        if previous is None:
            raise RegistryError(f"{name}: there is no version with the alias {PREVIOUS!r} to go back to")
        withdrawn = _get_version(client, name, previous).tags.get(WITHDRAWN_TAG)
        if withdrawn is not None:
            why = f"was rolled back itself ({withdrawn})"
            raise RegistryError(f"{name}: version {previous} {why}; promote one by --force")
        _begin_change(client, name, Event("rollback", previous, aliases.get(CHAMPION), by, reason, _format_now()))
        return previous


def recover(client: MlflowClient, name: str) -> Event | None:
    """Finish a change that a killed process left incomplete; return it, or None if there was none.

    Raises:
        RegistryError: no such model, or the version that was to become champion has since been
            deleted.
    """
    with _changing_aliases(client):
        return _recover(client, name)


@contextmanager
def _changing_aliases(client: MlflowClient) -> Iterator[None]:
    """Exclude other changes of aliases during the block, and shorten MLflow's errors to a line.

    Raises:
        RegistryError: MLflow refuses a name, a version or a reason.
    """
    try:
        with hold_store(client.tracking_uri):
            yield
    except MlflowException as error:
        raise RegistryError(shorten_error(error)) from error


def _recover(client: MlflowClient, name: str) -> Event | None:
    intent = _get_model(client, name).tags.get(INTENT_TAG)
    if intent is None:
        return None
    event = Event(**json.loads(intent))
    try:
        _get_version(client, name, event.version)
    except RegistryError as error:
        raise RegistryError(
            f"{name}: a change to version {event.version} was left incomplete, and that version is deleted; "
            f"set the aliases by hand and delete the model's tag {INTENT_TAG}"
        ) from error
    _complete_change(client, name, event)
    return event


def list_events(client: MlflowClient, name: str) -> list[Event]:
    """List all changes, oldest first."""
    return sorted((event for row in list_versions(client, name) for event in row.events), key=lambda event: event.at)


def find_champion(client: MlflowClient, name: str) -> str | None:
    """Find the present champion, or None."""
    version = client.get_registered_model(name).aliases.get("champion")
    return None if version is None else str(version)


def list_versions(client: MlflowClient, name: str) -> list[VersionRow]:
    """List all versions, newest first.

    Raises:
        RegistryError: no such model.
    """
    aliases = _read_aliases(client, name)
    versions: list[ModelVersion] = []
    token: str | None = ""
    while token is not None:
        page = client.search_model_versions(f"name = {quote_text(name)}", page_token=token or None)
        versions.extend(page)
        token = page.token or None
    rows = [_make_row(version, aliases) for version in versions]
    return sorted(rows, key=lambda row: int(row.version), reverse=True)


def _begin_change(client: MlflowClient, name: str, event: Event) -> None:
    client.set_registered_model_tag(name, INTENT_TAG, json.dumps(asdict(event)))
    _complete_change(client, name, event)


def _complete_change(client: MlflowClient, name: str, event: Event) -> None:
    """Make a recorded change; each step can be repeated, however many were done before.

    `previous` moves before `champion`: killed between the two, the champion is still the old one.
    """
    if event.replaced is not None:
        if event.kind == "rollback":
            client.set_model_version_tag(name, event.replaced, WITHDRAWN_TAG, event.reason)
        client.set_registered_model_alias(name, PREVIOUS, event.replaced)
    client.set_registered_model_alias(name, CHAMPION, event.version)
    aliases = _read_aliases(client, name)
    for other in (CHALLENGER, PREVIOUS):
        if aliases.get(other) == event.version:
            client.delete_registered_model_alias(name, other)
    if WITHDRAWN_TAG in _get_version(client, name, event.version).tags:
        client.delete_model_version_tag(name, event.version, WITHDRAWN_TAG)
    _record_event(client, name, event)
    client.delete_registered_model_tag(name, INTENT_TAG)


def _record_event(client: MlflowClient, name: str, event: Event) -> None:
    """Record an event as a tag named by its time, so that recording it again changes nothing."""
    client.set_model_version_tag(name, event.version, f"{EVENT_TAG}{event.at}", json.dumps(asdict(event)))


def _make_row(version: ModelVersion, aliases: dict[str, str]) -> VersionRow:
    number = str(version.version)
    return VersionRow(
        version=number,
        aliases=tuple(sorted(alias for alias, holder in aliases.items() if holder == number)),
        gate=version.tags.get(GATE_TAG, ""),
        withdrawn=version.tags.get(WITHDRAWN_TAG, ""),
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        run_id=version.run_id or "",
        events=_read_events(version),
    )


def _read_events(version: ModelVersion) -> tuple[Event, ...]:
    texts = [text for key, text in version.tags.items() if key.startswith(EVENT_TAG)]
    return tuple(sorted((Event(**json.loads(text)) for text in texts), key=lambda event: event.at))


def _read_aliases(client: MlflowClient, name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in _get_model(client, name).aliases.items()}


def _get_model(client: MlflowClient, name: str) -> RegisteredModel:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        raise RegistryError(f"no registered model {name!r}: {shorten_error(error)}") from error


def _get_version(client: MlflowClient, name: str, version: str | int) -> ModelVersion:
    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        raise RegistryError(f"no version {version!r} of {name}: {shorten_error(error)}") from error


def _format_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # MLflow allows no + in a tag's name
