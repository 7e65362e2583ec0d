"""The audit log: every decision and change of a registered model, in the order they were made.

It is a run of the experiment `oncoshift-audit`, whose tags are the lines: they lie in the tracking
database beside the registry, so they need no artifact store, survive the deletion of versions,
and two writers cannot lose each other's line. Each line has the SHA-256 of the line before it, and
a tag of the registered model has the number of lines and the SHA-256 of the last. So a line that
was changed or removed by hand is noticed; whoever can write to the store can also forge it all.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from mlflow.entities import ViewType

from oncoshift.errors import RegistryError
from oncoshift.registry.client import find_or_make
from oncoshift.registry.history import find_model
from oncoshift.registry.store import ensure_experiment, find_artifact_root
from oncoshift.registry.tracking import KEY_TAG, quote_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "oncoshift-audit"

HEAD_TAG = "oncoshift.audit"
"""Tag of a registered model: number of lines of its log, and SHA-256 of the last."""

_LINE_TAG = "line."
_PREVIOUS = "previous"
_LONGEST = 300
"""Largest number of characters of a text within a line; a line may have 8000."""


def append_line(client: MlflowClient, name: str, at: str, entry: Mapping[str, Any]) -> None:
    """Append a line to a model's log, once: the same entry of the same time is not repeated.

    Args:
        client: client of the store; the caller holds its lock.
        name: name of the registered model.
        at: time, ISO 8601 in UTC.
        entry: JSON values.
    """
    run = find_or_make(lambda: _find_run(client, name), lambda: _start_run(client, name))
    if run.info.lifecycle_stage == "deleted":
        client.restore_run(run.info.run_id)
    if run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id)
    lines = _read_lines(run)
    values = {"at": at, "model": name, "entry": _shorten(dict(entry))}
    of_this_time = [json.loads(line) for line in lines if at in line]  # to read thousands of lines takes a while
    if any(line == {**values, _PREVIOUS: line[_PREVIOUS]} for line in of_this_time):
        return
    values[_PREVIOUS] = _hash_line(lines[-1]) if lines else ""
    line = json.dumps(values, ensure_ascii=False)
    client.set_tag(run.info.run_id, f"{_LINE_TAG}{len(lines):08d}", line)
    client.set_registered_model_tag(name, HEAD_TAG, f"{len(lines) + 1} {_hash_line(line)}")


def read_lines(client: MlflowClient, name: str) -> list[str]:
    """Read a model's log, oldest line first; each is JSON.

    Raises:
        RegistryError: a line was changed or removed.
    """
    run = _find_run(client, name)
    lines = [] if run is None else _read_lines(run)
    previous = ""
    for number, line in enumerate(lines, start=1):
        if json.loads(line)[_PREVIOUS] != previous:
            raise RegistryError(f"audit log of {name}: line {number - 1} or {number} was changed or removed")
        previous = _hash_line(line)
    model = find_model(client, name)
    count, _, digest = ("0 " if model is None else model.tags.get(HEAD_TAG, "0 ")).partition(" ")
    # After a kill the tag may be a line behind.
    if len(lines) < int(count) or (int(count) and _hash_line(lines[int(count) - 1]) != digest):
        raise RegistryError(f"audit log of {name}: has {len(lines)} lines; line {count} was changed or removed")
    return lines


def read_entries(client: MlflowClient, name: str) -> list[dict[str, Any]]:
    """Read the entries of a model's log, oldest first; whether one was changed is not checked."""
    run = _find_run(client, name)
    return [] if run is None else [json.loads(line)["entry"] for line in _read_lines(run)]


def _find_run(client: MlflowClient, name: str) -> Run | None:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    key = quote_text(f"audit-{name}")
    query = f"tags.`{KEY_TAG}` = {key}"
    found = client.search_runs([experiment.experiment_id], query, ViewType.ALL, max_results=1)  # also in the trash
    return found[0] if found else None


def _start_run(client: MlflowClient, name: str) -> Run:
    experiment = ensure_experiment(client, EXPERIMENT, find_artifact_root(client.tracking_uri))
    return client.create_run(experiment.experiment_id, run_name=name, tags={KEY_TAG: f"audit-{name}"})


def _read_lines(run: Run) -> list[str]:
    return [line for key, line in sorted(run.data.tags.items()) if key.startswith(_LINE_TAG)]


def _shorten(value: Any) -> Any:
    """Cut long texts, so that a line fits into a tag of MLflow."""
    if isinstance(value, dict):
        return {key: _shorten(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shorten(inner) for inner in value]
    return f"{value[: _LONGEST - 2]} …" if isinstance(value, str) and len(value) > _LONGEST else value


def _hash_line(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()
