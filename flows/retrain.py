"""The retraining flow: data → tune → train → evaluate → select → explain → register → gate.

    python -m flows.retrain [--preset NAME] [--set KEY=VALUE] [--name NAME] [--force]

Each task is a thin cover of a step in `oncoshift.retraining`, which does its work once. So a flow that was killed is
simply started again: what is done is found, what was under way goes on. Tests: tests/flows, tests/e2e.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
from prefect import flow, get_client, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed
from rich.console import Console

from flows import PROJECT
from flows.logs import tell_errors_in_one_line
from flows.runs import ensure_gpu_limit, gpu, is_scheduled, living, mend
from flows.server import project_server
from oncoshift.errors import OncoshiftError, TrainingInterrupted
from oncoshift.experiments import experiment_lock
from oncoshift.files import FULL
from oncoshift.program import run_program
from oncoshift.registry.store import open_client
from oncoshift.retraining.evaluate import Evaluation, evaluate_step
from oncoshift.retraining.explain import explain_step
from oncoshift.retraining.gate import champion_version, gate_step
from oncoshift.retraining.prepare import data_step, end_force, make_plan
from oncoshift.retraining.register import register_step
from oncoshift.retraining.select import Selection, select_step
from oncoshift.retraining.session import Plan, Session, finished_summary, log_start, open_session
from oncoshift.retraining.summary import Outcome, close, to_lines, to_markdown, to_table
from oncoshift.retraining.train import train_step
from oncoshift.retraining.tune import tune_step
from oncoshift.secrets import without_credentials
from oncoshift.settings import load_settings
from oncoshift.training.interruption import stop_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from oncoshift.experiment_jobs import ExperimentJobs
    from oncoshift.registry.gate import Decision
    from oncoshift.settings import Settings
    from oncoshift.training.job import Job, TrainedJob


def may_pass(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    """Retry what may pass by itself (a locked database, a lost connection), not what the user must mend."""
    try:
        state.result()
    except OncoshiftError:
        return False
    except OSError as error:
        return error.errno not in FULL
    except Exception:
        return True
    return False


RETRYING: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": 5,
    "retry_condition_fn": may_pass,
    "cache_policy": NO_CACHE,
}


@task(name="data", **RETRYING)
def data(plan: Plan) -> ExperimentJobs:
    """`dvc repro`, from this one task."""
    return data_step(plan)


@task(name="tune", **RETRYING)
def tune(session: Session) -> Settings:
    """The Optuna study; holds the GPU while trials train."""
    with gpu(str(flow_run.id)):
        return tune_step(session)


@task(name="train", task_run_name="train-{method}-{number}", **RETRYING)
def train(session: Session, settings: Settings, method: str, number: int) -> tuple[Job, TrainedJob]:
    """One seed of one method; holds the GPU."""
    with gpu(str(flow_run.id)):
        return train_step(session, settings, method, number)


@task(name="evaluate", **RETRYING)
def evaluate(session: Session, trained: Mapping[str, Sequence[tuple[Job, TrainedJob]]]) -> Evaluation:
    """Metrics, intervals and plots on sources and target."""
    return evaluate_step(session, trained)


@task(name="select", **RETRYING)
def select(session: Session, jobs: Sequence[tuple[Job, TrainedJob]]) -> Selection:
    """The pick of the seeds and its verdict; holds the GPU while the method is trained from each organ alone."""
    with gpu(str(flow_run.id)):
        return select_step(session, jobs)


@task(name="explain", **RETRYING)
def explain(session: Session, selection: Selection) -> None:
    """Integrated Gradients of the picked model."""
    explain_step(session, selection.job, selection.trained)


@task(name="register", **RETRYING)
def register(session: Session, selection: Selection, evaluation: Evaluation, seeds: Sequence[int]) -> str:
    """The picked model becomes the challenger."""
    return register_step(session, selection, evaluation.reports[selection.job.settings.train.method], seeds)


@task(name="gate", **RETRYING)
def gate(session: Session, version: str, control: tuple[Job, TrainedJob], selection: Selection) -> Decision:
    """Challenger against control and champion; promotes or says why not."""
    return gate_step(session, version, control, selection)


@flow(name="retrain")
def retrain(
    preset: str | None = None, overrides: list[str] | None = None, force: bool = False, name: str | None = None
) -> State[dict[str, Any]]:
    """Retrain one experiment, unless nothing has changed.

    Args:
        preset: a file of presets/; None for params.yaml as it stands.
        overrides: `section.key=value` settings on top.
        force: train anew even if nothing has changed.
        name: of the experiment's folder below experiments/; None for one made of preset, target and overrides.

    Returns:
        A state named Promoted, Refused or Unchanged, whose data are the summary (see `oncoshift.retraining.summary`)
        with `trained` saying whether anything was done; or one named Stopped, after SIGTERM.
    """
    tell_errors_in_one_line()
    with living(str(flow_run.id)):
        # In the place of Prefect's own handler, which would end a training without a checkpoint.
        stop_on_sigterm()
        try:
            plan = make_plan(
                PROJECT,
                preset=preset,
                overrides=tuple(overrides or ()),
                force=force,
                environ=os.environ,
                say=get_run_logger().info,
                name=name,
                trusted=not is_scheduled(),
            )
            name_run(f"{plan.settings.target} ← {', '.join(plan.settings.sources)}")
            with experiment_lock(plan.layout):
                ensure_gpu_limit()
                return publish(carry_out(plan))
        except TrainingInterrupted as stopped:
            return Cancelled(name="Stopped", message=str(stopped))


def carry_out(plan: Plan) -> dict[str, Any]:
    """From a plan to the summary of what was done, or of what was done before and still stands."""
    open_client(plan.uri)  # a store that is away is told now, not when the data are ready
    session = open_session(plan, data(plan))
    before = finished_summary(session)
    if before is None:
        try:
            summary = run_steps(session)
        except BaseException as error:
            session.end(session.parent, error)
            raise
    else:
        ended = session.tracker.client.get_run(session.parent).info.end_time
        # A person may have moved the champion since.
        summary = {**before, "champion": champion_version(session), "ended_ms": ended}
    end_force(plan)
    return {**summary, "trained": before is None}


def run_steps(session: Session) -> dict[str, Any]:
    """From an open session to its summary."""
    log_start(session)
    configured = session.plan.settings
    settings = tune(session)
    numbers = range(configured.retrain.seeds)
    control, method = configured.retrain.control, configured.train.method
    trained: dict[str, list[tuple[Job, TrainedJob]]] = {
        name: [train(session, settings, name, number) for number in numbers] for name in (control, method)
    }
    evaluation = evaluate(session, trained)
    selection = select(session, trained[method])
    explain(session, selection)
    seeds = [each.settings.seed for each, _ in trained[method]]
    version = register(session, selection, evaluation, seeds)
    decision = gate(session, version, trained[control][seeds.index(selection.job.settings.seed)], selection)
    return close(session, Outcome(trained, evaluation, selection, decision, version, champion_version(session)))


def publish(summary: dict[str, Any]) -> State[dict[str, Any]]:
    """Show how the retraining ended in the Prefect UI: the run's name, artifacts, and the state to return."""
    key = f"retrain-{summary['target']}"
    ended = words_of(summary)
    text = (
        to_markdown(summary)
        if summary["trained"]
        else f"**{ended.message}**\n\nIts result was:\n\n{to_markdown(summary)}"
    )
    create_markdown_artifact(text, key=key, description="source-only against adapted, verdict, gate")
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    base = without_credentials(server) if server.startswith("http") else "http://127.0.0.1:5000"
    link = f"{base.rstrip('/')}/#/experiments/{summary['experiment']}/runs/{summary['run']}"
    create_link_artifact(link, "MLflow run", key=f"{key}-run", description="needs `make ui`, or the MLflow server")
    name_run(f"{summary['target']}: {str(ended.name).lower()}, {champion_words(summary)}")
    return ended


def words_of(summary: dict[str, Any]) -> State[dict[str, Any]]:
    """The state that says how a retraining ended."""
    if not summary["trained"]:
        ended = datetime.fromtimestamp(summary["ended_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
        words = f"Nothing was trained: data, settings and code are those of the retraining that ended {ended}"
        return Completed(name="Unchanged", message=f"{words}; {champion_words(summary)}.", data=summary)
    name = "Promoted" if summary["gate"]["promote"] else "Refused"
    words = f"{summary['model']}: the gate says {summary['gate']['verdict']} for version {summary['version']}"
    return Completed(name=name, message=f"{words}; {champion_words(summary)}.", data=summary)


def champion_words(summary: dict[str, Any]) -> str:
    """Which version is live."""
    return f"version {summary['champion']} is champion" if summary["champion"] else "there is no champion"


def name_run(name: str) -> None:
    """Give the flow run that is under way a name that says what it is; it works without one as well."""
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name)


def report(summary: dict[str, Any]) -> None:
    """Print the end of a retraining: table, gate, and what to do next."""
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    if not summary["trained"]:
        console.print("Nothing has changed (data, settings, code): nothing was trained. --force trains all the same.\n")
    console.print(to_table(summary))
    for line in to_lines(summary):
        console.print(line, markup=False)
    if summary["champion"] not in (None, summary["version"]):
        live = f"live is version {summary['champion']}, not {summary['version']}: `oncoshift models` says why"
        console.print(live, markup=False)
    console.print("\nlook:  make ui   (MLflow on http://127.0.0.1:5000)", markup=False)
    if summary["champion"]:
        console.print(f"pull:  oncoshift score --model models:/{summary['model']}@champion TILE.jpg", markup=False)


def main(argv: list[str] | None = None) -> int:
    """Run the flow once; `oncoshift.errors` lists the exit codes."""
    parser = argparse.ArgumentParser(prog="python -m flows.retrain", description=__doc__)
    parser.add_argument("--preset", metavar="NAME")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--name", metavar="NAME", help="of the experiment's folder")
    parser.add_argument("--force", action="store_true", help="train even if nothing has changed")
    given = parser.parse_args(argv)
    return run_program(lambda: run_once(given))


def run_once(given: argparse.Namespace) -> None:
    """Run the flow with a server, and print how it ended; a wrong setting is told before a server starts."""
    stop_on_sigterm()
    load_settings(PROJECT / "params.yaml", preset=given.preset, overrides=tuple(given.overrides))
    with project_server() as own:
        mend(own=own)
        state = retrain(given.preset, given.overrides, given.force, given.name, return_state=True)
    if state.is_cancelled():
        raise TrainingInterrupted(state.message or "")
    summary: Any = state.result()
    report(summary)


if __name__ == "__main__":
    sys.exit(main())
