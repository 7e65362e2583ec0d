"""The gate's decision on a version: tags that people read, and a line of the audit log."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from oncoshift.registry.approval import APPROVAL_TAG, Approval
from oncoshift.registry.audit import append_line, read_entries
from oncoshift.registry.history import GATE_TAG, get_version
from oncoshift.registry.lock import changing_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from oncoshift.registry.decision import Decision
    from oncoshift.registry.policy import Reason


def record_decision(
    client: MlflowClient, name: str, version: str | int, decision: Decision, retraining: str = ""
) -> None:
    """Record the gate's decision with the version, for `promote` to respect, and in the audit log.

    A person's answer to the same request for approval stays.

    Args:
        client: client of the registry.
        name: name of the registered model.
        version: version that was judged.
        decision: the decision; its machine form is the artifact gate.json of the gate's run.
        retraining: id of the MLflow run of the retraining, for a request for approval.

    Raises:
        RegistryError: no such model or version.
    """
    with changing_aliases(client) as client:
        present = get_version(client, name, version).tags
        approval, action = Approval.read(present), decision.action
        tags = {f"{GATE_TAG}.{_slug(reason.check)}": reason.outcome for reason in decision.reasons}
        if decision.action == "await":
            if approval is None or approval.until != decision.approve_until:
                approval = Approval("awaited", decision.approve_until, decision.champion, retraining)
            tags |= approval.to_tags()
            action = approval.action
        for old in present:
            if old.startswith((f"{GATE_TAG}.", APPROVAL_TAG)) and old not in tags:
                client.delete_model_version_tag(name, str(version), old)
        for key, text in {**tags, GATE_TAG: action}.items():
            if present.get(key) != text:
                client.set_model_version_tag(name, str(version), key, text)
        values = {**decision.to_dict(), "reasons": [_describe(reason) for reason in decision.reasons]}
        entry = {"kind": "gate", "version": str(version), **values}  # `append_line` cuts long lines
        append_line(client, name, decision.at, entry)


def count_judged(client: MlflowClient, name: str, version: str | int, labels: str) -> int:
    """Count the other versions of a model that the gate has judged by the same labels.

    Args:
        client: of the registry.
        name: of the registered model.
        version: which one not to count.
        labels: hash of the labels, see `Decision.labels`.
    """
    entries = read_entries(client, name)
    return len({entry["version"] for entry in entries if entry.get("labels") == labels} - {str(version)})


def _describe(reason: Reason) -> dict[str, Any]:
    """Return a reason's JSON values; its words have what was counted, as in earlier versions."""
    values = asdict(reason) | {"words": reason.line}
    del values["listed"], values["measured"]
    return values


def _slug(check: str) -> str:
    return "_".join(check.lower().split())
