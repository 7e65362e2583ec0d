"""The gate's decision on a version: tags that people read, and a line of the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.registry.audit import append_line
from oncoshift.registry.history import GATE_TAG, get_version
from oncoshift.registry.lock import changing_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from oncoshift.registry.decision import Decision


def record_decision(client: MlflowClient, name: str, version: str | int, decision: Decision) -> None:
    """Record the gate's decision with the version, for `promote` to respect, and in the audit log.

    Args:
        client: client of the registry.
        name: name of the registered model.
        version: version that was judged.
        decision: the decision; its machine form is the artifact gate.json of the gate's run.

    Raises:
        RegistryError: no such model or version.
    """
    with changing_aliases(client) as client:
        tags = {f"{GATE_TAG}.{_slug(reason.check)}": reason.outcome for reason in decision.reasons}
        for old in get_version(client, name, version).tags:
            if old.startswith(f"{GATE_TAG}.") and old not in tags:
                client.delete_model_version_tag(name, str(version), old)
        for key, text in tags.items():
            client.set_model_version_tag(name, str(version), key, text)
        client.set_model_version_tag(name, str(version), GATE_TAG, decision.action)
        entry = {"kind": "gate", "version": str(version), **decision.to_dict()}
        append_line(client, name, decision.at, entry)


def _slug(check: str) -> str:
    return "_".join(check.lower().split())
