"""The scoring flow: the tiles of a folder, a CSV or an archive, with the champion, into Parquet.

    python -m flows.score TILES --out scores.parquet [--model URI] [--preset NAME] [--set KEY=VALUE]

The work is `oncoshift.scoring.job`. A retry, or a later run into the same folder, leaves out the
tiles that have a row. So a retry loses nothing, and a run each night scores what is new.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows import PROJECT
from flows.endings import ending_in_a_state
from flows.parameters import Preset, load_chosen_settings
from flows.retrain import as_task, hold_gpu
from flows.runs import end_dead_runs, ensure_gpu_limit, is_scheduled
from flows.server import ensure_server
from oncoshift import cli
from oncoshift.console import report_tenths
from oncoshift.errors import SettingsError
from oncoshift.experiments import resolve_tracking_uri
from oncoshift.program import run_program
from oncoshift.scoring.job import Outcome, run_scoring
from oncoshift.settings.base import Organ

if TYPE_CHECKING:
    import argparse

    from oncoshift.settings import Settings


@flow(name="score", flow_run_name="score {tiles}", validate_parameters=False)
@ending_in_a_state
def score(
    tiles: str,
    out: str,
    target: Organ | None = None,
    model: str | None = None,
    preset: Preset | None = None,
    overrides: list[str] | None = None,
) -> Outcome:
    """Score tiles with a registered model and show the totals in the Prefect UI.

    Args:
        tiles: a folder, a CSV or an archive; a relative path is within the project.
        out: the folder of Parquet files, likewise.
        target: organ whose champion scores. Nothing here: as in preset or params.yaml.
        model: URI of another model, such as models:/oncoshift-kidney/3.
        preset: settings on top of params.yaml, from the folder presets/ or from tuning.
        overrides: any other settings on top of those.
    """
    ensure_gpu_limit()
    settings = load_chosen_settings(
        {"target": target, "preset": preset, "overrides": overrides}, trusted=not is_scheduled()
    )
    outcome = as_task("score", hold_gpu(score_project_tiles))(tiles, out, model, settings)
    version = f" version {outcome.model.version}" if outcome.model.version else ""
    text = f"{outcome.totals.tiles} tiles by {outcome.model.name}{version}: {outcome.totals.to_words()}"
    create_markdown_artifact(text, key="score", description=f"scores of {Path(tiles).name}")
    return outcome


def score_project_tiles(tiles: str, out: str, model: str | None, settings: Settings) -> Outcome:
    """Score tiles with a model of the project's store."""
    return run_scoring(
        PROJECT / tiles,
        PROJECT / out,
        model or f"models:/{settings.registered_model}@champion",
        resolve_tracking_uri(PROJECT, settings.tracking, os.environ),
        settings.tracking.experiment,
        report_tenths("score", get_run_logger().info),
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow once with the options of `oncoshift score --out`; return its exit code."""
    given = cli.build_parser().parse_args(["score", *(sys.argv[1:] if argv is None else argv)])
    return run_program(lambda: run_once(given))


def run_once(given: argparse.Namespace) -> None:
    """Run the flow with a server and print the totals.

    Raises:
        SettingsError: the command line names no output, or more than one input.
    """
    if given.out is None or len(given.images) != 1:
        raise SettingsError("python -m flows.score takes one folder, CSV or archive and --out FOLDER")
    tiles, out = (str(path.absolute()) for path in (given.images[0], given.out))
    with ensure_server() as own:
        end_dead_runs(own=own)
        chosen: dict[str, Any] = {"model": given.model, "preset": given.preset, "overrides": given.overrides}
        outcome = cast("Outcome", score(tiles, out, **chosen))
    print(f"{out}: {outcome.scored} tiles scored now, {outcome.totals.tiles} in all; {outcome.totals.to_words()}")


if __name__ == "__main__":
    sys.exit(main())
