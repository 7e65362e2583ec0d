"""The command `compare`: the finished retrainings of a target, side by side."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from oncoshift.commands.context import add_last

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from mlflow.entities import Run
    from rich.table import Table

    from oncoshift.commands.context import Context

_DIGITS = 8
"""Digits of a test set's hash, enough to tell two apart."""


@dataclass(frozen=True)
class Estimate:
    """An estimate with its interval.

    Attributes:
        point: the estimate.
        low: lower end of the interval; None where groups are too few for one.
        high: upper end of the interval; None likewise.
    """

    point: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None:
            return f"{self.point:.3f} (few groups)"
        return f"{self.point:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Row:
    """A finished retraining; balanced accuracy is that of the target's test tiles.

    Attributes:
        run: name of its run in MLflow.
        run_id: id of that run.
        experiment: name of its folder in experiments/; empty for the project's own settings.
        started: start time, ISO 8601 in UTC.
        backbone: `model.backbone`.
        variant: `train.variant`.
        seeds: the seeds, separated by commas.
        control: source-only method.
        control_accuracy: balanced accuracy of the control.
        method: adapting method.
        method_accuracy: balanced accuracy of the method.
        gain: method minus control, paired.
        verdict: verdict without labels: trust, doubt or refuse.
        gate: decision of the gate: promote, refuse or await.
        forced: who forced the version's last promotion past the gate, or empty.
        version: version of the registered model.
        test_set: hash of the test split; only rows with the same hash can be compared.
    """

    run: str
    run_id: str
    experiment: str
    started: str
    backbone: str
    variant: str
    seeds: str
    control: str
    control_accuracy: Estimate | None
    method: str
    method_accuracy: Estimate | None
    gain: Estimate | None
    verdict: str
    gate: str
    forced: str
    version: str
    test_set: str


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="two retrainings or trainings, by id, prefix of an id, or name; without: a list of all retrainings",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, with all digits")
    add_last(parser, "retrainings")


def compare(context: Context) -> None:
    """List the target's finished retrainings, newest first; or compare two runs that are named.

    Raises:
        DataError: two runs have no tile in common.
        RegistryError: a run is not found, or has no predictions.
        SettingsError: one run is named, or more than two.
    """
    from oncoshift.console import print_table

    if context.arguments.runs:
        _compare_named(context, context.arguments.runs)
        return
    settings = context.settings
    runs = _find_finished_runs(context)
    forced = _find_forced(context) if runs else {}
    rows = [_to_row(run, forced) for run in runs]
    if context.arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    elif rows:
        print_table(_build_table(settings.target, rows))
        if len({row.test_set for row in rows}) > 1:
            print("! not all were measured on the same test set: compare figures within one test set only")
        if len(rows) == context.arguments.last:
            print("older retrainings are left out; `--last 0` lists all")
    else:
        print(
            f"no retraining of {settings.target} has finished yet: `oncoshift retrain` does one; "
            "`--set target=ORGAN` lists those of another organ"
        )


def _compare_named(context: Context, runs: Sequence[str]) -> None:
    from oncoshift.commands.pairwise import compare_pair
    from oncoshift.errors import SettingsError

    if len(runs) != 2:
        raise SettingsError(f"compare takes two runs, or none for a list of all retrainings; got {len(runs)}")
    compare_pair(context, *runs)


def _find_finished_runs(context: Context) -> Sequence[Run]:
    """Find the finished retrainings, newest first; a missing store has none, and is not created."""
    from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD

    from oncoshift.registry.store import has_store
    from oncoshift.registry.tracking import Tracker

    settings = context.settings
    uri = context.tracking_uri
    if not has_store(uri):
        return []
    tracker = Tracker(uri, settings.tracking.experiment)
    return tracker.client.search_runs(
        [tracker.experiment_id],
        f"tags.`oncoshift.step` = 'retrain' and tags.`oncoshift.target` = '{settings.target}' "
        "and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
        max_results=context.arguments.last or SEARCH_MAX_RESULTS_THRESHOLD,
    )


def _find_forced(context: Context) -> dict[str, str]:
    """Find who forced the last promotion of each version of the target's model."""
    from oncoshift.registry.history import find_model, list_versions
    from oncoshift.registry.store import open_client

    client, name = open_client(context.tracking_uri), context.settings.registered_model
    if find_model(client, name) is None:
        return {}
    return {row.version: row.forced for row in list_versions(client, name)}


def _to_row(run: Run, forced: Mapping[str, str]) -> Row:
    from oncoshift.experiments import EXPERIMENT_TAG

    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    version = tags.get("oncoshift.version", "")
    inputs = run.inputs.dataset_inputs if run.inputs else ()
    digests = {each.dataset.name: each.dataset.digest for each in inputs}
    return Row(
        run=run.info.run_name,
        run_id=run.info.run_id,
        experiment=tags.get(EXPERIMENT_TAG, ""),
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(timespec="seconds"),
        backbone=params.get("trunk", ""),
        variant=params.get("variant", ""),
        seeds=params.get("seeds", ""),
        control=params.get("control", ""),
        control_accuracy=_read_estimate(metrics, "control/balanced_accuracy"),
        method=params.get("method", ""),
        method_accuracy=_read_estimate(metrics, "target/balanced_accuracy"),
        gain=_read_estimate(metrics, "gain/balanced_accuracy"),
        verdict=tags.get("oncoshift.verdict", ""),
        gate=tags.get("oncoshift.gate", ""),
        forced=forced.get(version, ""),
        version=version,
        test_set=digests.get("test", ""),
    )


def _read_estimate(metrics: dict[str, float], name: str) -> Estimate | None:
    """Read a metric with its interval; None where it was not logged."""
    if name not in metrics:
        return None
    return Estimate(metrics[name], metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))


def _count_seeds(seeds: str) -> str:
    """Count seeds and list them, for example `2 (0, 1)`: alone, the seed 0 would read as none."""
    return f"{len(seeds.split(','))} ({seeds})" if seeds else ""


def _build_table(target: str, rows: Sequence[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    named = any(row.experiment for row in rows)
    table = Table(title=f"{target}: balanced accuracy on test tiles", title_justify="left")
    of_run, results = (
        ("run", *(["experiment"] if named else []), "backbone", "variant", "seeds"),
        ("source-only", "adapted", "gain", "verdict", "gate"),
    )
    for column in (*of_run, *results, "version", "test set"):
        table.add_column(column, overflow="fold")  # names that are cut can look alike
    for row in rows:
        cells = (
            f"{row.run}\n{row.run_id[:_DIGITS]}, {row.started[:16].replace('T', ' ')} UTC",
            *([row.experiment] if named else []),
            row.backbone, row.variant, _count_seeds(row.seeds), f"{row.control} {row.control_accuracy or '–'}",
            f"{row.method} {row.method_accuracy or '–'}", str(row.gain or "–"), row.verdict,
            row.gate + (f", forced by {row.forced}" if row.forced else ""), row.version, row.test_set[:_DIGITS],
        )  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells))
    return table
