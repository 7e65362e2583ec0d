"""Copies of a version on another tracking server, as from staging to production.

A copy has the same bytes, which is checked where it arrives, and its evidence: the card, the gate's
tags, and the figures and files of the retraining that made it. Both histories say so.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from oncoshift.errors import RegistryError
from oncoshift.registry.approval import APPROVAL_TAG
from oncoshift.registry.changes import begin_change, finish_change
from oncoshift.registry.client import find_or_make, shorten_error
from oncoshift.registry.digests import SUMS_TAG, check_sums
from oncoshift.registry.history import (
    AWAITED,
    EVENT_TAG,
    RETRAINING_TAG,
    WITHDRAWN_TAG,
    Event,
    RefusedVersionError,
    choose_time,
    explain_refusal,
    get_version,
    read_events,
)
from oncoshift.registry.lock import changing_aliases
from oncoshift.registry.packaging import MODEL_TAG, link_run
from oncoshift.registry.tracking import KEY_TAG, quote_text
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from oncoshift.registry.tracking import Tracker

_STAYS = (APPROVAL_TAG, EVENT_TAG, KEY_TAG, MODEL_TAG, RETRAINING_TAG, WITHDRAWN_TAG)
"""Tags that are about this registry, and are not copied."""


def copy_version(source: MlflowClient, name: str, version: str, target: Tracker, by: str, reason: str) -> str:
    """Copy a version with its evidence to another server, once; a copy that is there is found.

    Args:
        source: client of the registry that has the version.
        name: name of the registered model, the same on both servers.
        version: version to copy.
        target: the other server.
        by: person or program, for the histories.
        reason: reason, for the histories.

    Returns:
        The number of the copy.

    Raises:
        RefusedVersionError: the version is refused, not approved or withdrawn; no force copies it.
        RegistryError: there is no such version, or its files are missing or damaged, here or there.
    """
    original = get_version(source, name, version)
    sums = original.tags.get(SUMS_TAG)
    if sums is None:
        raise RegistryError(f"{name} version {version}: was registered without digests; retrain, and copy the result")
    if (why := explain_refusal(original)) is not None:
        raise RefusedVersionError(f"{name} version {version}: is not copied: {why}", awaits=why == AWAITED)
    try:
        copy = _find_copy(target.client, name, sums) or _copy(source, original, target, sums)
        with TemporaryDirectory() as scratch:
            check_sums(_download(target.client, copy, scratch), f"{name} version {copy.version} of the copy", sums)
    except MlflowException as error:
        raise RegistryError(f"{name} version {version}: cannot be copied: {shorten_error(error)}") from error
    here, there = remove_credentials(source.tracking_uri), remove_credentials(target.uri)
    _record_copy(source, name, version, by, f"to {there} as version {copy.version}: {reason}")
    _record_copy(target.client, name, str(copy.version), by, f"from {here} version {version}: {reason}")
    return str(copy.version)


def _find_copy(client: MlflowClient, name: str, sums: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name = {quote_text(name)} and tags.`{SUMS_TAG}` = {quote_text(sums)}")
    return min(found, key=lambda each: int(each.version), default=None)


def _copy(source: MlflowClient, original: ModelVersion, target: Tracker, sums: str) -> ModelVersion:
    client, name = target.client, original.name
    run = target.find_or_start_run(f"copy-{sums}", f"{name} version {original.version}", tags={SUMS_TAG: sums})
    _copy_evidence(source, original, target, run)
    # If an answer is lost, a model without files is left over, which nothing refers to.
    model = find_or_make(
        lambda: None, lambda: client.create_logged_model(target.experiment_id, name, run, tags={SUMS_TAG: sums})
    )
    with TemporaryDirectory() as scratch:
        folder = _download(source, original, scratch)
        check_sums(folder, f"{name} version {original.version}", sums)
        client.log_model_artifacts(model.model_id, str(folder))
    link_run(client, run, model.model_id)
    client.finalize_logged_model(model.model_id, "READY")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {key: text for key, text in original.tags.items() if not key.startswith(_STAYS)}
    copy = find_or_make(
        lambda: _find_copy(client, name, sums),
        lambda: client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=run,
            tags=tags | {MODEL_TAG: model.model_id},
            description=original.description,
            model_id=model.model_id,
        ),
    )
    target.finish(run)
    return copy


def _copy_evidence(source: MlflowClient, original: ModelVersion, target: Tracker, run: str) -> None:
    """Copy parameters, figures and files of the retraining that made a version, if it is there."""
    retraining = original.tags.get(RETRAINING_TAG, original.run_id)
    if not retraining:
        return
    made = source.get_run(retraining)
    target.log_params(run, made.data.params)
    target.log_metrics(run, [(0, made.info.start_time, made.data.metrics)])
    with TemporaryDirectory() as scratch:
        if source.list_artifacts(retraining):
            target.log_folder(run, Path(source.download_artifacts(retraining, "", scratch)), "retraining")


def _download(client: MlflowClient, version: ModelVersion, scratch: str) -> Path:
    """Find a version's files on this machine, or download them."""
    location = client.get_model_version_download_uri(version.name, str(version.version))
    parsed = urlparse(location)
    if parsed.scheme in ("", "file"):
        folder = Path(unquote(parsed.path) if parsed.scheme else location)
        if not folder.is_dir():
            raise RegistryError(f"{version.name} version {version.version}: its files are not at {folder}")
        return folder
    return Path(download_artifacts(artifact_uri=location, dst_path=scratch, tracking_uri=client.tracking_uri))


def _record_copy(client: MlflowClient, name: str, version: str, by: str, reason: str) -> None:
    with changing_aliases(client) as client:
        finish_change(client, name)
        events = read_events(get_version(client, name, version))
        if not any(event.kind == "copied" and event.reason == reason for event in events):
            begin_change(client, name, Event("copied", version, None, by, reason, choose_time(None, *events)))
