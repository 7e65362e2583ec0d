"""The flow of the paper's grid: data of every pool, all rows, and the page of results.

    python -m flows.paper [--preset NAME] [--set KEY=VALUE] [--explain] [--out FILE]

The recipe is `oncoshift.grid.recipe`; its steps become Prefect tasks. Rows are measured, and
models explained, by worker processes, under one place in the `gpu` limit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows import PROJECT
from flows.endings import ending_in_a_state
from flows.parameters import Preset
from flows.retrain import as_task, link_to_mlflow
from flows.runs import end_dead_runs, ensure_gpu_limit, holding_gpu, is_scheduled
from flows.server import ensure_server
from oncoshift import cli
from oncoshift.errors import SettingsError
from oncoshift.grid import recipe
from oncoshift.grid.page import PAGE, prepare_page, write_page
from oncoshift.program import run_program
from oncoshift.registry.store import open_client
from oncoshift.registry.views import build_artifact_path
from oncoshift.retraining.prepare import prepare_data
from oncoshift.training.interruption import stop_on_sigterm

if TYPE_CHECKING:
    import argparse

    from oncoshift.grid.workers import Crew, RowTask


def do_task(crew: Crew, task: RowTask) -> None:
    """Have a worker measure a row, or explain a model."""
    crew.do(task)


STEPS = recipe.Steps(
    data=as_task("data", prepare_data, "data of {plan.layout.folder.name}"),
    row=as_task("row", do_task, "{task.title}"),
    results=as_task("results", recipe.collect),
)


@flow(name="paper", flow_run_name="paper", validate_parameters=False)
@ending_in_a_state
def paper(
    preset: Preset | None = None,
    overrides: list[str] | None = None,
    out: str | None = None,
    explain: bool = False,
) -> str:
    """Measure the grid of the paper on one's own tiles, and make its page of results.

    Args:
        preset: settings on top of params.yaml, from the folder presets/ or from tuning.
        overrides: any other settings on top of those, such as paper.workers=4.
        out: file to write the page to; a relative path is within the project. Nothing here: it is
            an artifact of the run in MLflow alone.
        explain: explain each pool's source-only and chosen model on test tiles; hours on a CPU.

    Returns:
        Id of the run in MLflow that has the page.
    """
    plan = recipe.make_plan(
        PROJECT,
        preset=preset,
        overrides=tuple(overrides or ()),
        environ=os.environ,
        say=get_run_logger().info,
        explains=explain,
        trusted=not is_scheduled(),
    )
    if out is not None:
        prepare_page(PROJECT / out)
    ensure_gpu_limit()
    with holding_gpu(str(flow_run.id), plan.say):
        results = recipe.run_grid(plan, STEPS)
    experiment = open_client(plan.uri).get_run(results.run).info.experiment_id
    link_to_mlflow(build_artifact_path(experiment, results.run, PAGE), "results", "paper-results")
    if out is not None:
        write_page(results, PROJECT / out)
        plan.say(f"results: written to {PROJECT / out}")
    return results.run


def main(argv: list[str] | None = None) -> int:
    """Run the flow once with the options of `oncoshift paper`; return its exit code."""
    given = cli.build_parser().parse_args(["paper", *(sys.argv[1:] if argv is None else argv)])
    return run_program(lambda: run_once(given))


def run_once(given: argparse.Namespace) -> None:
    """Run the flow with a server.

    Raises:
        SettingsError: the options are those of another project, or list rows instead.
    """
    stop_on_sigterm()
    if given.list or given.params not in (None, PROJECT / "params.yaml"):
        raise SettingsError(f"python -m flows.paper runs the grid of {PROJECT / 'params.yaml'}; use `oncoshift paper`")
    with ensure_server() as own:
        end_dead_runs(own=own)
        out = None if given.out is None else str(Path(given.out).absolute())
        chosen: dict[str, Any] = {
            "preset": given.preset,
            "overrides": given.overrides,
            "out": out,
            "explain": given.explain,
        }
        state = paper(**chosen, return_state=True)
    print(f"results: run {state.result()} in MLflow")


if __name__ == "__main__":
    sys.exit(main())
