"""The versions of a registered model and the history of its champion, read from the registry.

MLflow keeps no history of aliases: each change is a tag of the version that it made champion or
challenger. The changes of the champion form a chain: each names the champion that it replaced.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from mlflow.exceptions import MlflowException

from oncoshift.errors import RegistryError
from oncoshift.registry.client import shorten_error
from oncoshift.registry.tracking import quote_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"

GATE_TAG = "oncoshift.gate"
WITHDRAWN_TAG = "oncoshift.withdrawn"
EVENT_TAG = "oncoshift.event."

Kind = Literal["challenge", "promote", "rollback", "manual", "removed", "undo", "copied"]

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # MLflow allows no + in a tag's name


@dataclass(frozen=True)
class Event:
    """A change of the champion, a new challenger, or a copy to another registry.

    Attributes:
        kind: kind of the change; `manual` and `removed` are changes of the alias outside oncoshift,
            and `undo` reverts one.
        version: version that became champion or challenger, or was copied; of `removed`, the
            champion that lost the alias.
        replaced: champion before; None if there was none, or for a challenger or a copy.
        by: person or program that made the change.
        reason: reason that was given.
        at: time, ISO 8601 in UTC; it grows along the chain, whatever the machines' clocks say.
    """

    kind: Kind
    version: str
    replaced: str | None
    by: str
    reason: str
    at: str

    @property
    def changes_champion(self) -> bool:
        """Whether this is a link of the chain of champions."""
        return self.kind not in ("challenge", "copied")

    @property
    def champion(self) -> str | None:
        """The champion after a change of it."""
        return None if self.kind == "removed" else self.version


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


def list_events(client: MlflowClient, name: str) -> list[Event]:
    """List all changes, oldest first."""
    return sorted((event for row in list_versions(client, name) for event in row.events), key=lambda event: event.at)


def find_champion(client: MlflowClient, name: str) -> str | None:
    """Find the present champion, or None."""
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else str(version)


def find_recorded_champion(events: Sequence[Event]) -> str | None:
    """Find the champion that the history ends with, or None.

    Args:
        events: the history, oldest first.
    """
    return next((event.champion for event in reversed(events) if event.changes_champion), None)


def list_versions(client: MlflowClient, name: str) -> list[VersionRow]:
    """List all versions, newest first.

    Raises:
        RegistryError: no such model.
    """
    aliases = read_aliases(client, name)
    versions: list[ModelVersion] = []
    token: str | None = ""
    while token is not None:
        page = client.search_model_versions(f"name = {quote_text(name)}", page_token=token or None)
        versions.extend(page)
        token = page.token or None
    rows = [_make_row(version, aliases) for version in versions]
    return sorted(rows, key=lambda row: int(row.version), reverse=True)


def record_event(client: MlflowClient, name: str, event: Event) -> None:
    """Record an event as a tag named by its time, so that recording it again changes nothing."""
    client.set_model_version_tag(name, event.version, f"{EVENT_TAG}{event.at}", json.dumps(asdict(event)))


def read_events(version: ModelVersion) -> tuple[Event, ...]:
    """Read the history of one version, oldest first."""
    texts = [text for key, text in version.tags.items() if key.startswith(EVENT_TAG)]
    return tuple(sorted((Event(**json.loads(text)) for text in texts), key=lambda event: event.at))


def read_aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Read the versions of a model that have an alias, by alias.

    Raises:
        RegistryError: no such model.
    """
    return {alias: str(version) for alias, version in get_model(client, name).aliases.items()}


def get_model(client: MlflowClient, name: str) -> RegisteredModel:
    """Get a registered model.

    Raises:
        RegistryError: no such model.
    """
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        raise RegistryError(f"no registered model {name!r}: {shorten_error(error)}") from error


def get_version(client: MlflowClient, name: str, version: str | int) -> ModelVersion:
    """Get a version of a registered model.

    Raises:
        RegistryError: no such version.
    """
    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        raise RegistryError(f"no version {version!r} of {name}: {shorten_error(error)}") from error


def choose_time(events: Sequence[Event]) -> str:
    """Choose the time of a new event: now, but after all others, as clocks of machines differ."""
    now = datetime.now(UTC)
    if events:
        last = datetime.strptime(max(event.at for event in events), _TIME).replace(tzinfo=UTC)
        now = max(now, last + timedelta(microseconds=1))
    return now.strftime(_TIME)


def _make_row(version: ModelVersion, aliases: dict[str, str]) -> VersionRow:
    number = str(version.version)
    return VersionRow(
        version=number,
        aliases=tuple(sorted(alias for alias, holder in aliases.items() if holder == number)),
        gate=version.tags.get(GATE_TAG, ""),
        withdrawn=version.tags.get(WITHDRAWN_TAG, ""),
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        run_id=version.run_id or "",
        events=read_events(version),
    )
