"""The versions of a registered model and the history of its champion, read from the registry.

MLflow keeps no history of aliases: each change is a tag of the version that it made champion or
challenger. The changes of the champion form a chain: each names the champion that it replaced.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from mlflow.exceptions import MlflowException

from oncoshift.errors import RegistryError
from oncoshift.registry.approval import Approval
from oncoshift.registry.client import shorten_error
from oncoshift.registry.pages import read_pages
from oncoshift.registry.policy import FAILED
from oncoshift.registry.times import add_time, get_time
from oncoshift.registry.tracking import quote_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"

GATE_TAG = "oncoshift.gate"
WITHDRAWN_TAG = "oncoshift.withdrawn"
EVENT_TAG = "oncoshift.event."
LAST_TAG = "oncoshift.last"
"""Tag of a registered model: the last change of its champion."""
RETRAINING_TAG = "oncoshift.retraining"
"""Tag of a version: id of the run of the retraining that registered it."""

Action = Literal["promote", "refuse", "await"]
"""What the gate decided: promote, refuse, or await a person's approval."""

Kind = Literal["challenge", "promote", "rollback", "manual", "removed", "undo", "copied"]


AWAITED = "it awaits approval"
"""What `explain_refusal` says of a version that a person has yet to approve."""


class RefusedVersionError(RegistryError):
    """A version must not become champion unless forced; the message's first line says why.

    A command that has options for it adds what to do.

    Args:
        message: see `OncoshiftError`.
        awaits: whether a person may yet approve the version.
    """

    def __init__(self, message: str, *, awaits: bool = False) -> None:
        super().__init__(message)
        self.awaits = awaits


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
        forced: what the person overruled, as `explain_refusal` says it; empty where nothing was.
    """

    kind: Kind
    version: str
    replaced: str | None
    by: str
    reason: str
    at: str
    forced: str = ""

    def to_dict(self) -> dict[str, str | None]:
        """Return the JSON values to record, without `forced` where nothing was."""
        return {key: value for key, value in asdict(self).items() if key != "forced" or value}

    @property
    def words(self) -> str:
        """What was done, by whom and why, in a line."""
        forced = f", forced although {self.forced}" if self.forced else ""
        return f"{self.kind} by {self.by}{forced}: {self.reason}"

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
        gate: promote, refuse, await, or empty without a decision of the gate.
        approval: until when a person may approve it, or who did; empty where none was asked for.
        withdrawn: why it was rolled back, or empty.
        forced: who forced its last promotion, or empty.
        created: time of registration, ISO 8601 in UTC.
        run_id: id of the run that made it.
        events: its history, oldest first.
    """

    version: str
    aliases: tuple[str, ...]
    gate: str
    approval: str
    withdrawn: str
    forced: str
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


def find_last_change(client: MlflowClient, name: str) -> Event | None:
    """Find the last change of the champion in the history; None without one.

    The model's tag has it, so that nobody need read all versions. It is believed where it names the
    present champion; else somebody has moved the alias, and the histories of all versions decide.

    Raises:
        RegistryError: no such model.
    """
    model = get_model(client, name)
    if LAST_TAG in model.tags:
        last = Event(**json.loads(model.tags[LAST_TAG]))
        live = model.aliases.get(CHAMPION)
        if last.champion == (None if live is None else str(live)):
            return last
    return next((event for event in reversed(list_events(client, name)) if event.changes_champion), None)


def list_versions(client: MlflowClient, name: str, last: int = 0) -> list[VersionRow]:
    """List versions, newest first.

    Args:
        client: of the registry.
        name: of the model.
        last: number of the newest versions, which are listed with those that have an alias; 0: all.

    Raises:
        RegistryError: no such model.
    """
    aliases = read_aliases(client, name)
    versions = _read_last(client, name, last, set(aliases.values())) if last else search_versions(client, name)
    rows = [_make_row(version, aliases) for version in versions]
    return sorted(rows, key=lambda row: int(row.version), reverse=True)


def search_versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    """Yield all versions of a model, as MLflow has them; none where there is no such model."""
    chosen = f"name = {quote_text(name)}"
    return read_pages(lambda token: client.search_model_versions(chosen, page_token=token))


def _read_last(client: MlflowClient, name: str, count: int, others: set[str]) -> list[ModelVersion]:
    found = client.search_model_versions(
        f"name = {quote_text(name)}", max_results=count, order_by=["version_number DESC"]
    )
    missing = others - {str(version.version) for version in found}
    return [*found, *(get_version(client, name, number) for number in missing)]


def record_event(client: MlflowClient, name: str, event: Event) -> None:
    """Record an event as a tag named by its time, so that recording it again changes nothing."""
    text = json.dumps(event.to_dict())
    client.set_model_version_tag(name, event.version, f"{EVENT_TAG}{event.at}", text)
    if event.changes_champion:
        client.set_registered_model_tag(name, LAST_TAG, text)


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
        advice = "; `oncoshift retrain` registers a version of its target's" if _is_absent(error) else ""
        raise RegistryError(f"no registered model {name!r}: {shorten_error(error)}{advice}") from error


def find_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    """Find a registered model, or None."""
    models = client.search_registered_models(f"name = {quote_text(name)}")
    return models[0] if models else None


def get_version(client: MlflowClient, name: str, version: str | int) -> ModelVersion:
    """Get a version of a registered model.

    Raises:
        RegistryError: no such version.
    """
    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        advice = "; `oncoshift models` lists them" if _is_absent(error) else ""
        raise RegistryError(f"no version {version!r} of {name}: {shorten_error(error)}{advice}") from error


def _is_absent(error: MlflowException) -> bool:
    return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")


def choose_time(last: Event | None, *others: Event) -> str:
    """Choose the time of a new event: now, but after earlier ones, as clocks of machines differ.

    Args:
        last: the last change of the champion, if there is one.
        others: history of the event's version.
    """
    earlier = others if last is None else (last, *others)
    return max([get_time(), *(add_time(event.at, microseconds=1) for event in earlier)])


def explain_refusal(version: ModelVersion) -> str | None:
    """Explain why a version must not become champion unless forced; None if it may.

    Histories keep the words, see `Event.forced`, so they are the fact alone, without advice.
    """
    withdrawn, gate = version.tags.get(WITHDRAWN_TAG), version.tags.get(GATE_TAG)
    if withdrawn is not None:
        return f"it was rolled back ({withdrawn})"
    if gate == "await":
        return AWAITED
    if gate != "refuse":
        return None
    if (approval := Approval.read(version.tags)) is not None:
        return f"it passed the gate, but was not approved ({approval.words})"
    failed = list_failed(version)
    return "the gate refused it" + (f" ({', '.join(failed)})" if failed else "")


def list_failed(version: ModelVersion) -> dict[str, str]:
    """List the conditions of the gate that a version failed: name → its outcome in words."""
    start, mark = f"{GATE_TAG}.", f"{FAILED}: "
    return {
        key.removeprefix(start).replace("_", " "): text.removeprefix(mark)
        for key, text in sorted(version.tags.items())
        if key.startswith(start) and text.startswith(mark)
    }


def _make_row(version: ModelVersion, aliases: dict[str, str]) -> VersionRow:
    number, approval, events = str(version.version), Approval.read(version.tags), read_events(version)
    promoted = next((event for event in reversed(events) if event.kind == "promote"), None)
    return VersionRow(
        version=number,
        aliases=tuple(sorted(alias for alias, holder in aliases.items() if holder == number)),
        gate=version.tags.get(GATE_TAG, ""),
        approval=approval.words if approval else "",
        withdrawn=version.tags.get(WITHDRAWN_TAG, ""),
        forced=promoted.by if promoted and promoted.forced else "",
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        run_id=version.run_id or "",
        events=events,
    )
