"""Answers to requests for approval: the first one counts, and what comes too late is refused."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from oncoshift.errors import RegistryError
from oncoshift.registry.approval import Approval
from oncoshift.registry.audit import append_line
from oncoshift.registry.changes import begin_change, finish_change, read_last_change
from oncoshift.registry.history import (
    GATE_TAG,
    WITHDRAWN_TAG,
    Event,
    choose_time,
    get_version,
    read_events,
)
from oncoshift.registry.lock import changing_aliases
from oncoshift.registry.times import get_time

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Answer:
    """A person's answer to a request.

    Attributes:
        approve: whether the version becomes champion.
        by: who answers.
        reason: reason, for the history.
    """

    approve: bool
    by: str
    reason: str


def settle_approval(client: MlflowClient, name: str, version: str | int, answer: Answer | None = None) -> Approval:
    """Answer a request, or refuse it if its time is over; promote the version that was approved.

    An answered request stays as it is, but a promotion that a killed process left out is made.

    Args:
        client: client of the registry.
        name: name of the registered model.
        version: version that passed the gate.
        answer: None: only see whether the time is over.

    Returns:
        The approval as it stands now.

    Raises:
        RegistryError: no such version, or no approval was asked for.
    """
    with changing_aliases(client) as client:
        finish_change(client, name)
        last = read_last_change(client, name)
        target = get_version(client, name, version)
        version, approval = str(target.version), Approval.read(target.tags)
        if approval is None:
            raise RegistryError(f"{name} version {version}: no approval was asked for; `oncoshift models` lists all")
        if approval.state == "awaited":
            approval = _answer(approval, answer)
        if approval.state == "awaited":
            return approval
        champion, own = last.champion if last else None, read_events(target)
        done = champion == version or any(event.kind == "promote" and event.at > approval.at for event in own)
        if approval.state == "approved" and not done and (why := _find_obstacle(approval, target, last)):
            said = f"approved by {approval.by} ({approval.reason}), but {why}"
            approval = replace(approval, state="overtaken", reason=said)
        for key, text in {**approval.to_tags(), GATE_TAG: approval.action}.items():
            if target.tags.get(key) != text:
                client.set_model_version_tag(name, version, key, text)
        append_line(client, name, approval.at, {"kind": "approval", "version": version, **asdict(approval)})
        if approval.state == "approved" and not done:
            reason = f"approved by {approval.by}: {approval.reason}"
            event = Event("promote", version, champion, approval.by, reason, choose_time(last, *own))
            begin_change(client, name, event)
    return approval


def _find_obstacle(approval: Approval, target: ModelVersion, last: Event | None) -> str | None:
    """Find what keeps an approved version from becoming champion: what happened since the gate."""
    champion = last.champion if last else None
    if champion != approval.champion:
        judged, live = (f"version {each}" if each else "no version" for each in (approval.champion, champion))
        return f"{live} is champion now, and it was judged against {judged}"
    if WITHDRAWN_TAG in target.tags:
        return "it was rolled back before"
    # A promotion that a killed process left out is not made up for after other changes.
    return "the champion has changed since" if last is not None and last.at > approval.at else None


def _answer(approval: Approval, answer: Answer | None) -> Approval:
    now = get_time()
    if now > approval.until:
        return replace(approval, state="timed out", at=now)
    if answer is None:
        return approval
    return replace(
        approval, state="approved" if answer.approve else "refused", by=answer.by, reason=answer.reason, at=now
    )
