"""Garbage in MLflow: versions, failed retrainings, what somebody deleted, and lost folders."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import NullPool, create_engine

from oncoshift.maintenance.garbage import Garbage, count_days, count_days_since, measure
from oncoshift.maintenance.uses import list_versions
from oncoshift.registry.audit import EXPERIMENT, append_line
from oncoshift.registry.history import GATE_TAG, WITHDRAWN_TAG, find_model, get_model
from oncoshift.registry.lock import changing_aliases
from oncoshift.registry.packaging import MODEL_TAG
from oncoshift.registry.relocation import parse_local_folder
from oncoshift.registry.times import get_time
from oncoshift.registry.tracking import quote_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from oncoshift.maintenance.uses import Uses

_IDENTITY = re.compile(r"[0-9a-f]{32}")
_TRASHED_RUNS = (
    "SELECT r.run_uuid, r.name, r.deleted_time, r.artifact_uri FROM runs r JOIN experiments e "  # noqa: S608
    f"ON e.experiment_id = r.experiment_id WHERE r.lifecycle_stage = 'deleted' AND e.name <> '{EXPERIMENT}'"
)
_TRASHED_MODELS = (
    "SELECT model_id, name, last_updated_timestamp_ms, artifact_location FROM logged_models "
    "WHERE lifecycle_stage = 'deleted'"
)


def find_versions(uses: Uses) -> Iterator[Garbage]:
    """Find versions that nothing needs."""
    for version in uses.versions:
        if version.need:
            continue
        entity = version.entity
        gate, withdrawn = entity.tags.get(GATE_TAG), entity.tags.get(WITHDRAWN_TAG)
        why = "was rolled back" if withdrawn else f"gate: {gate}" if gate else "the gate never judged it"
        folder = parse_local_folder(entity.source or "")
        yield Garbage(
            "version",
            f"{entity.name} version {entity.version}",
            f"{why}; no alias, never champion",
            count_days_since(entity.last_updated_timestamp),
            0 if folder is None else measure(folder),
            (entity.name, str(entity.version)),
        )


def find_runs(uses: Uses) -> Iterator[Garbage]:
    """Find retrainings that ended without a result and were not started again."""
    kept = {version.retraining for version in uses.versions} | {each.id for each in uses.needed}
    for each in uses.retrainings:
        if each.has_failed and each.id not in kept:
            ids = tuple(str(run.info.run_id) for run in each.runs)
            reason = f"{each.run.info.status}, registered nothing, and was not started again"
            yield Garbage("run", each.run.info.run_name, reason, each.days, sum(map(_measure_run, each.runs)), ids)


def find_trash(url: str, days: float) -> Iterator[Garbage]:
    """Find runs and models that were deleted in MLflow, but not lately.

    Args:
        url: of MLflow's database.
        days: what was deleted later stays.
    """
    for query in (_TRASHED_RUNS, _TRASHED_MODELS):
        for identity, name, at, place in _read(url, query):
            if count_days_since(at) >= days:
                folder = parse_local_folder(place or "")
                size = 0 if folder is None else measure(folder)
                yield Garbage("trash", name or identity, "deleted in MLflow", count_days_since(at), size, (identity,))


def find_lost_folders(url: str, artifacts: Path, days: float) -> Iterator[Garbage]:
    """Find folders of artifacts whose run or model is gone, as where a collection was killed.

    Args:
        url: of the embedded store's database.
        artifacts: its folder of artifacts.
        days: younger folders stay.
    """
    known = {identity for table in ("runs", "logged_models") for (identity,) in _read(url, _list_ids(table))}
    folders = [path for path in artifacts.glob("*") if _IDENTITY.fullmatch(path.name)]
    for folder in (*folders, *artifacts.glob("models/m-*")):
        if folder.name not in known and (age := count_days(folder)) >= days:
            yield Garbage(
                "artifacts", folder.name, "MLflow knows no such run or model", age, measure(folder), paths=(folder,)
            )


def _list_ids(table: str) -> str:
    return f"SELECT {'run_uuid' if table == 'runs' else 'model_id'} FROM {table}"  # noqa: S608 - names of ours


def delete_version(client: MlflowClient, garbage: Garbage, by: str, days: float) -> tuple[str, ...]:
    """Delete a version, unless it is needed by now, and say so in the audit log.

    Returns:
        Id of its logged model, to purge; empty if the version stays.
    """
    name, number = garbage.ids
    with changing_aliases(client) as client:
        versions = list_versions(client, get_model(client, name), days) if find_model(client, name) else iter(())
        found = next((each for each in versions if str(each.entity.version) == number and not each.need), None)
        if found is None:
            return ()
        entry = {"kind": "deleted", "version": number, "by": by, "reason": f"oncoshift gc: {garbage.reason}"}
        append_line(client, name, get_time(), entry)
        model = _find_own_model(client, found.entity)
        with suppress(MlflowException):  # one that is in the trash already, as where a collection was killed
            if model is not None:
                client.delete_logged_model(model)
        client.delete_model_version(name, number)
    return () if model is None else (model,)


def _find_own_model(client: MlflowClient, version: ModelVersion) -> str | None:
    """Find the logged model of a version; None if another version has the same files."""
    same = client.search_model_versions(f"source_path = {quote_text(str(version.source))}")
    return version.tags.get(MODEL_TAG) if len(same) == 1 else None


def trash_runs(client: MlflowClient, garbage: Garbage) -> tuple[str, ...]:
    """Delete a failed retraining's runs and return their ids; none if it was started again."""
    if client.get_run(garbage.ids[-1]).info.status not in ("FAILED", "KILLED"):
        return ()
    for run in garbage.ids:
        client.delete_run(run)
    return garbage.ids


def purge(url: str, ids: tuple[str, ...]) -> None:
    """Remove deleted runs and models from MLflow's database for good, files first.

    It does what `mlflow gc` does for these; that command would also take every deleted experiment.
    """
    store = SqlAlchemyStore(url, "unused")  # type: ignore[no-untyped-call]
    for identity in ids:
        if identity.startswith("m-"):
            place = store.get_logged_model(identity, allow_deleted=True).artifact_location
            remove = store._hard_delete_logged_model
        else:
            place = store.get_run(identity).info.artifact_uri  # type: ignore[no-untyped-call]
            remove = store._hard_delete_run
        get_artifact_repository(place).delete_artifacts()  # type: ignore[no-untyped-call]
        if (folder := parse_local_folder(place)) is not None:
            with suppress(OSError):  # else the folder of the run or model would stay, empty
                folder.parent.rmdir()
        remove(identity)  # type: ignore[no-untyped-call]


def _measure_run(run: Run) -> int:
    folder = parse_local_folder(run.info.artifact_uri or "")
    return 0 if folder is None else measure(folder)


def _read(url: str, query: str) -> list[tuple[Any, ...]]:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]
