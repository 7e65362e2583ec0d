"""Answers to requests for approval: the first one counts, and what comes too late is refused."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from oncoshift.errors import RegistryError
from oncoshift.registry.approval import Approval
from oncoshift.registry.audit import append_line
from oncoshift.registry.changes import finish_change
from oncoshift.registry.history import GATE_TAG, get_version, read_events
from oncoshift.registry.lock import changing_aliases
from oncoshift.registry.promotion import promote
from oncoshift.registry.times import get_time

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
        ChampionMovedError: the version is approved, but another one than the gate compared it with
            has become champion.
        RegistryError: no such version, or no approval was asked for.
    """
    with changing_aliases(client) as client:
        finish_change(client, name)
        tags = get_version(client, name, version).tags
        approval = Approval.read(tags)
        if approval is None:
            raise RegistryError(f"{name} version {version}: no approval was asked for; `oncoshift models` lists all")
        if approval.state == "awaited":
            approval = _answer(approval, answer)
        if approval.state == "awaited":
            return approval
        for key, text in {**approval.to_tags(), GATE_TAG: approval.action}.items():
            if tags.get(key) != text:
                client.set_model_version_tag(name, str(version), key, text)
        append_line(client, name, approval.at, {"kind": "approval", "version": str(version), **asdict(approval)})
    if approval.state == "approved" and not _was_promoted(client, name, version, approval):
        reason = f"approved by {approval.by}: {approval.reason}"
        promote(client, name, version, reason, approval.by, expected=approval.champion)
    return approval


def _answer(approval: Approval, answer: Answer | None) -> Approval:
    now = get_time()
    if now > approval.until:
        return replace(approval, state="timed out", at=now)
    if answer is None:
        return approval
    return replace(
        approval, state="approved" if answer.approve else "refused", by=answer.by, reason=answer.reason, at=now
    )


def _was_promoted(client: MlflowClient, name: str, version: str | int, approval: Approval) -> bool:
    events = read_events(get_version(client, name, version))
    return any(event.kind == "promote" and event.at > approval.at for event in events)
