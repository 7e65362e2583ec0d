"""The watching flow: a new unlabelled batch against what the champion was trained on.

    python -m flows.watch BATCH [--model URI] [--preset NAME] [--set KEY=VALUE]

The work is `oncoshift.watching.job`. Where anything has passed its limit, the flow emits the event
`oncoshift.drift`, on which an automation can start a retraining. A run that finds the batch judged
already emits it only if the earlier run was killed before it could.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from flows import PROJECT
from flows.endings import ending_in_a_state
from flows.parameters import Preset, load_chosen_settings
from flows.retrain import as_task, hold_gpu, name_run
from flows.runs import end_dead_runs, ensure_gpu_limit, is_scheduled
from flows.server import ensure_server
from oncoshift import cli
from oncoshift.commands.watching import show
from oncoshift.console import report_tenths
from oncoshift.experiments import resolve_tracking_uri
from oncoshift.program import run_program
from oncoshift.registry.store import open_client
from oncoshift.registry.times import get_time
from oncoshift.settings.base import Organ
from oncoshift.watching.job import Watched, watch_batch

if TYPE_CHECKING:
    import argparse

    from oncoshift.settings import Settings

EVENT = "oncoshift.drift"
"""Event of a batch past a limit; its resource is `oncoshift.model.<registered model>`."""

REPORTED = "oncoshift.drift_reported"
"""Tag of a batch's run in MLflow: when its event was emitted."""


@flow(name="watch", flow_run_name="watch {batch}", validate_parameters=False)
@ending_in_a_state
def watch(
    batch: str,
    target: Organ | None = None,
    model: str | None = None,
    preset: Preset | None = None,
    overrides: list[str] | None = None,
) -> Watched:
    """Compare a batch with the training tiles of a registered model.

    Args:
        batch: a folder, a CSV or an archive; a relative path is within the project.
        target: organ of the batch. Nothing here: as in preset or params.yaml.
        model: URI of another model than the target's champion.
        preset: settings on top of params.yaml, from the folder presets/ or from tuning.
        overrides: any other settings on top of those.
    """
    ensure_gpu_limit()
    settings = load_chosen_settings(
        {"target": target, "preset": preset, "overrides": overrides}, trusted=not is_scheduled()
    )
    watched = as_task("watch", hold_gpu(watch_project_batch))(batch, model, settings)
    as_task("report", report_drift)(watched, settings)
    outcome = watched.outcome
    create_markdown_artifact(outcome.to_markdown(), key="watch", description=f"{outcome.batch}: {outcome.words}")
    name_run(f"watch {outcome.batch}: {outcome.title}")
    return watched


def watch_project_batch(batch: str, model: str | None, settings: Settings) -> Watched:
    """Watch a batch with a model of the project's store."""
    return watch_batch(
        PROJECT / batch,
        model or f"models:/{settings.registered_model}@champion",
        resolve_tracking_uri(PROJECT, settings.tracking, os.environ),
        settings,
        PROJECT / "runs" / "watch",
        report_tenths("watch", get_run_logger().info),
    )


def report_drift(watched: Watched, settings: Settings) -> None:
    """Emit the event of a batch that has passed a limit, once for each run in MLflow."""
    outcome = watched.outcome
    if watched.run is None or not outcome.alarms:
        return
    client = open_client(resolve_tracking_uri(PROJECT, settings.tracking, os.environ))
    if REPORTED in client.get_run(watched.run).data.tags:
        return
    name = outcome.model.name
    emit_event(
        EVENT,
        resource={"prefect.resource.id": build_resource(name), "prefect.resource.name": name},
        payload={
            "batch": outcome.batch,
            "alarms": list(outcome.alarms),
            "words": outcome.words,
            "version": outcome.model.version,
            "run": watched.run,
        },
    )
    client.set_tag(watched.run, REPORTED, get_time())


def build_resource(model: str) -> str:
    """Build the id of a registered model as the resource of its drift."""
    return f"oncoshift.model.{model}"


def main(argv: list[str] | None = None) -> int:
    """Run the flow once with the options of `oncoshift watch`; return its exit code."""
    given = cli.build_parser().parse_args(["watch", *(sys.argv[1:] if argv is None else argv)])
    return run_program(lambda: run_once(given))


def run_once(given: argparse.Namespace) -> None:
    """Run the flow with a server and print what was found."""
    with ensure_server() as own:
        end_dead_runs(own=own)
        chosen: dict[str, Any] = {"model": given.model, "preset": given.preset, "overrides": given.overrides}
        watched = watch(str(given.batch.absolute()), **chosen)
    show(cast("Watched", watched))


if __name__ == "__main__":
    sys.exit(main())
