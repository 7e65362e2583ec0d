"""The scoring flow: the tiles of a folder, a CSV or an archive, with the champion, into Parquet.

    python -m flows.score TILES --out scores.parquet [--model URI] [--preset NAME] [--set KEY=VALUE]

The work is `oncoshift.scoring.job`. A retry, or a later run into the same folder, leaves out the
tiles that have a row. So a retry loses nothing, and a run each night scores what is new.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows import PROJECT
from flows.logs import log_errors_in_one_line
from flows.retrain import as_task, hold_gpu
from flows.runs import end_dead_runs, ensure_gpu_limit
from flows.server import ensure_server
from oncoshift import cli
from oncoshift.console import report_tenths
from oncoshift.errors import SettingsError
from oncoshift.experiments import resolve_tracking_uri
from oncoshift.program import run_program
from oncoshift.scoring.job import Outcome, run_scoring
from oncoshift.settings import load_settings

if TYPE_CHECKING:
    import argparse


@flow(name="score")
def score(
    tiles: str, out: str, model: str | None = None, preset: str | None = None, overrides: list[str] | None = None
) -> Outcome:
    """Score tiles with a registered model and show the totals in the Prefect UI.

    Args:
        tiles: a folder, a CSV or an archive; a relative path is within the project.
        out: the folder of Parquet files, likewise.
        model: a model URI; None: the champion of the settings' target.
        preset: a file of presets/; None for params.yaml alone.
        overrides: `section.key=value` settings on top.
    """
    log_errors_in_one_line()
    ensure_gpu_limit()
    outcome = as_task("score", hold_gpu(score_project_tiles))(tiles, out, model, preset, tuple(overrides or ()))
    version = f" version {outcome.model.version}" if outcome.model.version else ""
    text = f"{outcome.totals.tiles} tiles by {outcome.model.name}{version}: {outcome.totals.to_words()}"
    create_markdown_artifact(text, key="score", description=f"scores of {Path(tiles).name}")
    return outcome


def score_project_tiles(
    tiles: str, out: str, model: str | None, preset: str | None, overrides: tuple[str, ...]
) -> Outcome:
    """Score tiles with a model of the project's store."""
    settings = load_settings(PROJECT / "params.yaml", preset=preset, overrides=overrides)
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
        outcome = score(tiles, out, given.model, given.preset, given.overrides)
    print(f"{out}: {outcome.scored} tiles scored now, {outcome.totals.tiles} in all; {outcome.totals.to_words()}")


if __name__ == "__main__":
    sys.exit(main())
