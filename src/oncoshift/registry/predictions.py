"""Predictions of a run in MLflow: found by the run's id, a prefix of it, or its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from oncoshift.errors import RegistryError
from oncoshift.files import DamagedFileError
from oncoshift.registry.pages import read_pages
from oncoshift.registry.tracking import KEY_TAG

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

    from oncoshift.registry.tracking import Tracker

_PREFIX = 4
"""Least number of characters of an id's prefix."""

_SHOWN = 5
"""Candidates that an error lists."""


@dataclass(frozen=True)
class RunPredictions:
    """The test predictions of a retraining's method, or of one of its trainings.

    Attributes:
        run_id: id of the run.
        title: name and id of the run, with the method.
        target: organ that the retraining adapts to.
        table: with the columns of `evaluation.domains.PREDICTION_COLUMNS`, of one or more seeds.
    """

    run_id: str
    title: str
    target: str
    table: pd.DataFrame


def find_by_name(tracker: Tracker, given: str) -> Run:
    """Find a retraining or a training by its id, a prefix of its id, or its name.

    Raises:
        RegistryError: there is no such run, or more than one.
    """
    runs = [run for step in ("retrain", "train") for run in _list_runs(tracker, step)]
    found = [run for run in runs if run.info.run_id == given]
    found = found or [run for run in runs if run.info.run_name == given]
    if not found and len(given) >= _PREFIX:
        found = [run for run in runs if run.info.run_id.startswith(given)]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{run.info.run_id[:8]} ({run.info.run_name})" for run in (found or runs)[:_SHOWN])
    if found:
        raise RegistryError(f"{given!r} is {len(found)} runs: {shown}; name one by its id")
    known = f"; the last ones are {shown}" if runs else ""
    raise RegistryError(f"no retraining or training has the id, prefix of an id, or name {given!r}{known}")


def read_predictions(tracker: Tracker, given: str) -> RunPredictions:
    """Read the predictions of a retraining's adapting method, or of one training.

    Args:
        tracker: the store.
        given: id, prefix of an id, or name of the run.

    Raises:
        RegistryError: the run is not found, or has no predictions.
    """
    run = find_by_name(tracker, given)
    params, tags = run.data.params, run.data.tags
    parent, seed = run, None
    if tags["oncoshift.step"] == "train":
        parent, seed = tracker.client.get_run(tags[MLFLOW_PARENT_RUN_ID]), int(params["seed"])
    method = params.get("method", params.get("train.method", ""))  # its name in earlier versions
    table = _read_table(tracker, parent, method)
    title = f"{run.info.run_name} ({run.info.run_id[:8]}, {method})"
    if table is None or (seed is not None and seed not in set(table["seed"])):
        raise RegistryError(
            f"{title} has no predictions: its retraining has not reached step evaluate ({parent.info.status}); "
            "start the retraining again, and it goes on"
        )
    rows = table if seed is None else table[table["seed"] == seed]
    return RunPredictions(run.info.run_id, title, parent.data.tags["oncoshift.target"], rows)


def _list_runs(tracker: Tracker, step: str) -> list[Run]:
    """List the runs of a step, newest first."""
    experiments, of_step = [tracker.experiment_id], f"tags.`oncoshift.step` = '{step}'"
    newest = ["attributes.start_time DESC"]
    return list(
        read_pages(lambda token: tracker.client.search_runs(experiments, of_step, order_by=newest, page_token=token))
    )


def _read_table(tracker: Tracker, retraining: Run, method: str) -> pd.DataFrame | None:
    """Read the predictions that step evaluate saved of a method; None if there are none."""
    step = tracker.find_run(f"{retraining.data.tags.get(KEY_TAG)}/evaluate")
    if step is None:
        return None
    try:
        table = tracker.read_table(step.info.run_id, f"{method}/predictions.json")
    except DamagedFileError:
        return None
    return table.astype({"tile_id": str, "organ": str, "group": str})
