"""Registration of a trained classifier as a version, once for each key.

The order makes a crash harmless: a model is PENDING in MLflow until all its files are uploaded, and
only a READY model becomes a version. The next call finds by the key what exists and continues from
there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from oncoshift.registry.card import replace_sections
from oncoshift.registry.client import find_or_make
from oncoshift.registry.digests import SUMS_TAG, write_sums
from oncoshift.registry.folder import Package, save_folder
from oncoshift.registry.store import hold_store
from oncoshift.registry.tracking import KEY_TAG, quote_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

    from oncoshift.registry.tracking import Tracker

MODEL_TAG = "oncoshift.model_id"
"""Tag of a version: id of the logged model that has its files."""

DIFFERENCE_TAG = "oncoshift.difference."
"""On a version and its logged model, followed by a form of the network: its largest difference in
probability from the classifier in float32."""

MAX_DESCRIPTION = 5000
"""Largest number of characters that the registry's database stores of a description."""


_CELL_END = re.compile(r"(?<!&emsp;)(?<!---)(?<!---:) \|")
"""End of a cell; the UI's tables have no space between columns, so their cells end in one."""


def log_and_register(
    tracker: Tracker, run_id: str, key: str, package: Package, tags: Mapping[str, str] | None = None
) -> ModelVersion:
    """Register the package as a version of `package.config.name`; each key gets a single version.

    Args:
        tracker: the store.
        run_id: run that made the model.
        key: identity of the model, for example the hash of the job that trained it.
        package: the package to register.
        tags: tags of a new version.

    Returns:
        The new version, or the one that this key already has.
    """
    client, name = tracker.client, package.config.name
    with hold_store(tracker.uri):
        version = find_version(client, name, key) or _make_version(tracker, run_id, key, package, tags or {})
        # The UI's link from the logged model to its version.
        link = json.dumps([{"name": name, "version": str(version.version)}])
        client.set_logged_model_tags(version.tags[MODEL_TAG], {MLFLOW_MODEL_VERSIONS: link})
        link_run(client, run_id, version.tags[MODEL_TAG])
    return version


def find_version(client: MlflowClient, name: str, key: str) -> ModelVersion | None:
    """Find the version with this key, or None."""
    found = client.search_model_versions(f"name = {quote_text(name)} and tags.`{KEY_TAG}` = {quote_text(key)}")
    return min(found, key=lambda each: int(each.version), default=None)


def update_card(client: MlflowClient, name: str, version: str, sections: Mapping[str, str]) -> None:
    """Replace sections of the card in a version's description; the model's own copy stays as is."""
    card = client.get_model_version(name, version).description or ""
    updated = _shorten_card(replace_sections(card, sections))
    if updated != card:
        client.update_model_version(name, version, updated)


def describe_model(client: MlflowClient, name: str, text: str, tags: Mapping[str, str]) -> None:
    """Set a registered model's description and tags, where they differ."""
    model = client.get_registered_model(name)
    if model.description != text:
        client.update_registered_model(name, text)
    for key, value in tags.items():
        if model.tags.get(key) != value:
            client.set_registered_model_tag(name, key, value)


def _make_version(tracker: Tracker, run_id: str, key: str, package: Package, tags: Mapping[str, str]) -> ModelVersion:
    client, name = tracker.client, package.config.name
    model = find_or_make(
        lambda: _find_model(tracker, name, key),
        lambda: client.create_logged_model(tracker.experiment_id, name, run_id, tags={KEY_TAG: key}),
    )
    if model.status != "READY":
        model = _upload(client, run_id, model, package)
    checked = {key: value for key, value in model.tags.items() if key == SUMS_TAG or key.startswith(DIFFERENCE_TAG)}
    _ensure_registered_model(client, name)
    return find_or_make(
        lambda: find_version(client, name, key),
        lambda: client.create_model_version(
            name,
            # Not `models:/<id>`: MLflow would look that up in the process's global store.
            source=model.artifact_location,
            run_id=run_id,
            tags={**tags, **checked, KEY_TAG: key, MODEL_TAG: model.model_id},
            description=_shorten_card(package.card),
            model_id=model.model_id,
        ),
    )


def _find_model(tracker: Tracker, name: str, key: str) -> LoggedModel | None:
    found = tracker.client.search_logged_models(
        [tracker.experiment_id], filter_string=f"name = {quote_text(name)} and tags.`{KEY_TAG}` = {quote_text(key)}"
    )
    return min(found, key=lambda each: (each.creation_timestamp, each.model_id), default=None)


def link_run(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Link a run to a logged model, also where an earlier run made the model."""

    def find() -> bool | None:
        outputs = client.get_run(run_id).outputs
        return model_id in {output.model_id for output in (outputs.model_outputs if outputs else ())} or None

    def link() -> bool:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        return True

    find_or_make(find, link)


def _upload(client: MlflowClient, run_id: str, model: LoggedModel, package: Package) -> LoggedModel:
    """Upload the files over those of an earlier attempt, then set READY."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        differences = save_folder(
            package, folder, Model(run_id=run_id, model_id=model.model_id, model_uuid=model.model_id)
        )
        sums = write_sums(folder)
        client.log_model_artifacts(model.model_id, str(folder))
    checked = {f"{DIFFERENCE_TAG}{form}": f"{value:.1e}" for form, value in differences.items()}
    client.set_logged_model_tags(model.model_id, {SUMS_TAG: sums, **checked})
    return client.finalize_logged_model(model.model_id, "READY")


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _shorten_card(card: str) -> str:
    """Make a card a description: space between its tables' columns, no more than is stored."""
    lines = (_CELL_END.sub("&emsp; |", line) if line.startswith("| ") else line for line in card.splitlines(True))
    card = "".join(lines)
    return card if len(card) <= MAX_DESCRIPTION else f"{card[: MAX_DESCRIPTION - 2]} …"
