"""Checks of the stores: reachable, of this version, and their champions as the gate left them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.errors import OncoshiftError
from oncoshift.maintenance.databases import exists, read_schema_version
from oncoshift.maintenance.findings import Finding
from oncoshift.registry.answers import settle_approval
from oncoshift.registry.approval import Approval
from oncoshift.registry.audit import read_lines
from oncoshift.registry.changes import INTENT_TAG, finish_change
from oncoshift.registry.embedded import find_database
from oncoshift.registry.history import CHAMPION, search_versions
from oncoshift.registry.lease import find_dead_lock, free_dead_lock
from oncoshift.registry.loading import find_folder
from oncoshift.registry.lock import changing_aliases
from oncoshift.registry.models import list_models
from oncoshift.registry.store import has_store, open_client
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

    from oncoshift.maintenance.findings import Scene


def open_store(scene: Scene) -> MlflowClient | None:
    """Open the store, if there is one.

    Raises:
        RegistryError: see `open_client`.
        UnavailableError: see `open_client`.
    """
    return open_client(scene.tracking) if has_store(scene.tracking) else None


def check_tracking(scene: Scene) -> Iterator[Finding]:
    """Check that MLflow's store answers, and can be read by this version of MLflow."""
    shown = remove_credentials(scene.tracking)
    yield Finding("tracking", "ok", shown)
    if open_store(scene) is not None and not shown.startswith("http"):
        yield Finding("schema", "ok", f"{read_schema_version(scene.tracking)} of MLflow's database")


def check_studies(scene: Scene) -> Iterator[Finding]:
    """Check that the studies' database answers."""
    there = exists(scene.studies)
    words = remove_credentials(scene.studies)
    yield Finding("studies", "ok", words if there else f"{words}; made by the first study")


def check_models(scene: Scene) -> Iterator[Finding]:
    """Check each model's champion, audit log, request for approval, and unfinished change."""
    if (client := open_store(scene)) is None:
        return
    if (lock := find_dead_lock(client)) is not None:
        yield Finding(
            "lock", "warning", f"registered model {lock!r} is held by a process that has ended",
            "the next change takes it over, and --fix frees it now", lambda: free_dead_lock(client),
        )  # fmt: skip
    for model in list_models(client):
        for check in (_check_change, _check_files, _check_log, _check_approvals):
            try:
                yield from check(scene, client, model)
            except OncoshiftError as error:
                yield Finding("models", "error", str(error))


def _check_change(_: Scene, client: MlflowClient, model: RegisteredModel) -> Iterator[Finding]:
    def finish() -> None:
        with changing_aliases(client) as fenced:
            finish_change(fenced, model.name)

    if INTENT_TAG in model.tags:
        yield Finding(
            "aliases", "warning", f"{model.name}: a change of its champion was left incomplete",
            "the next change finishes it, and --fix does so now", finish,
        )  # fmt: skip


def _check_files(scene: Scene, _: MlflowClient, model: RegisteredModel) -> Iterator[Finding]:
    """Compare the champion's files with their digests; from a server only where they are served."""
    if CHAMPION not in model.aliases:
        yield Finding("champion", "ok", f"{model.name}: none")
    elif find_database(scene.tracking) is not None or scene.profile == "serve":
        find_folder(f"models:/{model.name}@{CHAMPION}", scene.tracking)  # raises where they differ
        yield Finding("champion", "ok", f"{model.name}: version {model.aliases[CHAMPION]}, its files are whole")


def _check_log(_: Scene, client: MlflowClient, model: RegisteredModel) -> Iterator[Finding]:
    read_lines(client, model.name)  # raises where a line was changed
    yield from ()


def _check_approvals(_: Scene, client: MlflowClient, model: RegisteredModel) -> Iterator[Finding]:
    for version in search_versions(client, model.name):
        approval = Approval.read(version.tags)
        if approval is None or approval.state != "awaited":
            continue
        name, number = model.name, str(version.version)
        if approval.is_due():
            yield Finding(
                "approval", "warning", f"{name} version {number}: {approval.words}, and nobody did",
                "--fix records that it timed out", lambda: settle_approval(client, name, number),  # noqa: B023
            )  # fmt: skip
        else:
            yield Finding("approval", "ok", f"{name} version {number}: {approval.words}")
