"""What differs between a retraining and the one that made the present champion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml
from mlflow import MlflowException

from oncoshift.registry.history import RETRAINING_TAG
from oncoshift.retraining.naming import SETTINGS, describe_commit
from oncoshift.settings import flatten_values

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Run


@dataclass(frozen=True)
class Changes:
    """The differences to an earlier retraining.

    Attributes:
        since: version whose retraining this one is compared with; None for the first champion.
        lines: one difference each, or why nothing can be compared.
    """

    since: str | None
    lines: tuple[str, ...]


def find_changes(client: MlflowClient, name: str, champion: str | None, run_id: str) -> Changes:
    """Compare a retraining with that of the champion.

    Args:
        client: client of the store.
        name: name of the registered model.
        champion: version that was champion when the retraining began, or None.
        run_id: id of the retraining's run.
    """
    if champion is None:
        return Changes(None, ("There was no champion before this retraining.",))
    try:
        earlier = client.get_run(client.get_model_version(name, champion).tags[RETRAINING_TAG])
    except (MlflowException, KeyError):
        return Changes(champion, ("The retraining that made it is not recorded here.",))
    if earlier.info.run_id == run_id:
        return Changes(champion, ("It is the model of this retraining.",))
    run = client.get_run(run_id)
    lines = (*_compare_data(earlier, run), *_compare_settings(client, earlier, run), *_compare_commits(earlier, run))
    return Changes(champion, lines or ("Neither data nor settings nor the commit.",))


def list_datasets(run: Run) -> dict[str, Dataset]:
    """List the data sets that a run read, by name."""
    inputs = run.inputs.dataset_inputs if run.inputs else ()
    return {each.dataset.name: each.dataset for each in inputs}


def read_profile(dataset: Dataset) -> dict[str, Any]:
    """Read the counts of a data set, such as its tiles; empty where it has none."""
    profile: dict[str, Any] = json.loads(dataset.profile or "{}")
    return profile


def _compare_data(earlier: Run, run: Run) -> list[str]:
    before, after = list_datasets(earlier), list_datasets(run)
    return [
        f"data {name}: {_describe(before.get(name))} → {_describe(after.get(name))}"
        for name in sorted(before | after)
        if name not in before or name not in after or before[name].digest != after[name].digest
    ]


def _describe(dataset: Dataset | None) -> str:
    if dataset is None:
        return "absent"
    counts = ", ".join(f"{count} {what}" for what, count in read_profile(dataset).items())
    return f"{counts or 'content'} ({dataset.digest[:8]})"


def _compare_settings(client: MlflowClient, earlier: Run, run: Run) -> list[str]:
    try:
        before, after = (_read_settings(client, each.info.run_id) for each in (earlier, run))
    except (MlflowException, OSError, yaml.YAMLError):
        return ["settings: those of the champion's retraining cannot be read"]
    return [
        f"setting {key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
    ]


def _read_settings(client: MlflowClient, run_id: str) -> dict[str, object]:
    with TemporaryDirectory() as scratch:
        text = Path(client.download_artifacts(run_id, SETTINGS, scratch)).read_text(encoding="utf-8")
    return flatten_values(yaml.safe_load(text))


def _compare_commits(earlier: Run, run: Run) -> list[str]:
    before, after = (describe_commit(each.data.tags) for each in (earlier, run))
    return [] if before == after else [f"code: commit {before} → {after}"]
