"""The watching flow: a new unlabelled batch against what the champion was trained on.

    python -m flows.watch BATCH [--model URI] [--preset NAME] [--set KEY=VALUE]

The work is `oncoshift.watching.job`. Where anything has passed its limit, the flow emits the event
`oncoshift.drift`, on which an automation can start a retraining. A run that finds the batch judged
already emits it only if the earlier run was killed before it could.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from flows import PROJECT
from flows.logs import log_errors_in_one_line
from flows.retrain import as_task, hold_gpu, name_run
from flows.runs import end_dead_runs, ensure_gpu_limit
from flows.server import ensure_server
from oncoshift import cli
from oncoshift.commands.watching import show
from oncoshift.console import report_tenths
from oncoshift.experiments import resolve_tracking_uri
from oncoshift.program import run_program
from oncoshift.registry.store import open_client
from oncoshift.registry.times import get_time
from oncoshift.settings import load_settings
from oncoshift.watching.job import Watched, watch_batch

if TYPE_CHECKING:
    import argparse

EVENT = "oncoshift.drift"
"""Event of a batch past a limit; its resource is `oncoshift.model.<registered model>`."""

REPORTED = "oncoshift.drift_reported"
"""Tag of a batch's run in MLflow: when its event was emitted."""


@flow(name="watch")
def watch(
    batch: str, model: str | None = None, preset: str | None = None, overrides: list[str] | None = None
) -> Watched:
    """Compare a batch with the training tiles of a registered model.

    Args:
        batch: a folder, a CSV or an archive; a relative path is within the project.
        model: a model URI; None: the champion of the settings' target.
        preset: a file of presets/; None for params.yaml alone.
        overrides: `section.key=value` settings on top.
    """
    log_errors_in_one_line()
    ensure_gpu_limit()
    watched = as_task("watch", hold_gpu(watch_project_batch))(batch, model, preset, tuple(overrides or ()))
    as_task("report", report_drift)(watched, preset, tuple(overrides or ()))
    outcome = watched.outcome
    create_markdown_artifact(outcome.to_markdown(), key="watch", description=f"{outcome.batch}: {outcome.words}")
    name_run(f"watch {outcome.batch}: {', '.join(outcome.alarms) or 'no drift'}")
    return watched


def watch_project_batch(batch: str, model: str | None, preset: str | None, overrides: tuple[str, ...]) -> Watched:
    """Watch a batch with a model of the project's store."""
    settings = load_settings(PROJECT / "params.yaml", preset=preset, overrides=overrides)
    return watch_batch(
        PROJECT / batch,
        model or f"models:/{settings.registered_model}@champion",
        resolve_tracking_uri(PROJECT, settings.tracking, os.environ),
        settings,
        PROJECT / "runs" / "watch",
        report_tenths("watch", get_run_logger().info),
    )


def report_drift(watched: Watched, preset: str | None, overrides: tuple[str, ...]) -> None:
    """Emit the event of a batch that has passed a limit, once for each run in MLflow."""
    outcome = watched.outcome
    if watched.run is None or not outcome.alarms:
        return
    settings = load_settings(PROJECT / "params.yaml", preset=preset, overrides=overrides)
    client = open_client(resolve_tracking_uri(PROJECT, settings.tracking, os.environ))
    if REPORTED in client.get_run(watched.run).data.tags:
        return
    name = outcome.model.name
    emit_event(
        EVENT,
        resource={"prefect.resource.id": f"oncoshift.model.{name}", "prefect.resource.name": name},
        payload={
            "batch": outcome.batch,
            "alarms": list(outcome.alarms),
            "words": outcome.words,
            "version": outcome.model.version,
            "run": watched.run,
        },
    )
    client.set_tag(watched.run, REPORTED, get_time())


def main(argv: list[str] | None = None) -> int:
    """Run the flow once with the options of `oncoshift watch`; return its exit code."""
    given = cli.build_parser().parse_args(["watch", *(sys.argv[1:] if argv is None else argv)])
    return run_program(lambda: run_once(given))


def run_once(given: argparse.Namespace) -> None:
    """Run the flow with a server and print what was found."""
    with ensure_server() as own:
        end_dead_runs(own=own)
        watched = watch(str(given.batch.absolute()), given.model, given.preset, given.overrides)
    show(watched)


if __name__ == "__main__":
    sys.exit(main())
