"""The retraining flow: data → tune → train → evaluate → select → explain → register → gate.

    python -m flows.retrain [--preset NAME] [--set KEY=VALUE] [--force]

Each task is a thin cover of a step in `oncoshift.retraining`, which does its work once. So a flow that was killed is
simply started again: what is done is found, what was under way goes on. Tests: tests/flows, tests/e2e.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from prefect import flow, get_client, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from rich.console import Console

from flows import PROJECT
from oncoshift.errors import OncoshiftError
from oncoshift.experiments import experiment_lock
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
from oncoshift.training.interruption import stop_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from oncoshift.experiment_jobs import ExperimentJobs
    from oncoshift.registry.gate import Decision
    from oncoshift.settings import Settings
    from oncoshift.training.job import Job, TrainedJob

GPU = "gpu"
"""Name of the concurrency limit that every training holds; its size is set in the Prefect UI, 1 until then."""


def may_pass(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    """Retry what may pass by itself (a locked database, a lost connection), not what the user must mend."""
    try:
        state.result()
    except OncoshiftError:
        return False
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
    with concurrency(GPU, occupy=1):
        return tune_step(session)


@task(name="train", task_run_name="train-{method}-{number}", **RETRYING)
def train(session: Session, settings: Settings, method: str, number: int) -> tuple[Job, TrainedJob]:
    """One seed of one method; holds the GPU."""
    with concurrency(GPU, occupy=1):
        return train_step(session, settings, method, number)


@task(name="evaluate", **RETRYING)
def evaluate(session: Session, trained: Mapping[str, Sequence[tuple[Job, TrainedJob]]]) -> Evaluation:
    """Metrics, intervals and plots on sources and target."""
    return evaluate_step(session, trained)


@task(name="select", **RETRYING)
def select(session: Session, jobs: Sequence[tuple[Job, TrainedJob]]) -> Selection:
    """The pick of the seeds and its verdict; holds the GPU while the method is trained from each organ alone."""
    with concurrency(GPU, occupy=1):
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
    return gate_step(session, version, control, selection.verdict)


@flow(name="retrain")
def retrain(preset: str | None = None, overrides: list[str] | None = None, force: bool = False) -> dict[str, Any]:
    """Retrain one experiment, unless nothing has changed.

    Args:
        preset: a file of presets/; None for params.yaml as it stands.
        overrides: `section.key=value` settings on top.
        force: train anew even if nothing has changed.

    Returns:
        The summary (see `oncoshift.retraining.summary`), with `trained` saying whether anything was done.
    """
    plan = make_plan(
        PROJECT,
        preset=preset,
        overrides=tuple(overrides or ()),
        force=force,
        environ=os.environ,
        say=get_run_logger().info,
    )
    with experiment_lock(plan.layout):
        ensure_gpu_limit(free=get_current_settings().api.url is None)
        session = open_session(plan, data(plan))
        summary = finished_summary(session)
        trained = summary is None
        if summary is not None:
            summary["champion"] = champion_version(session)  # a person may have moved it since
        else:
            try:
                summary = run_steps(session)
            except BaseException as error:
                session.end(session.parent, error)
                raise
        end_force(plan)
    publish(summary)
    return {**summary, "trained": trained}


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


def ensure_gpu_limit(*, free: bool) -> None:
    """Make the limit where it is absent.

    Args:
        free: free its slots. Right where the server has just been started: a slot that looks taken was a killed flow's,
            whose lease died with the server before. (So two flows at once in one project want a lasting server, which
            frees a killed flow's slot when its lease runs out.)
    """
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(GPU)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU, limit=1))
        if free:
            client.update_global_concurrency_limit(GPU, GlobalConcurrencyLimitUpdate(active_slots=0))


def publish(summary: dict[str, Any]) -> None:
    """The summary and the way to MLflow, as artifacts in the Prefect UI."""
    key = f"retrain-{summary['target']}"
    create_markdown_artifact(to_markdown(summary), key=key, description="source-only against adapted, verdict, gate")
    base = os.environ.get("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    link = f"{base.rstrip('/')}/#/experiments/{summary['experiment']}/runs/{summary['run']}"
    create_link_artifact(link, "MLflow run", key=f"{key}-run", description="needs `make ui`, or the MLflow server")


def report(summary: dict[str, Any]) -> None:
    """Print the end of a retraining: table, gate, and what to do next."""
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    if not summary["trained"]:
        console.print("Nothing has changed (data, settings, code): nothing was trained. --force trains all the same.\n")
    console.print(to_table(summary))
    for line in to_lines(summary):
        console.print(line, markup=False)
    if summary["champion"] not in (None, summary["version"]):
        console.print(f"live is version {summary['champion']}, not {summary['version']}: `oncoshift models` says why")
    console.print("\nlook:  make ui   (MLflow on http://127.0.0.1:5000)", markup=False)
    if summary["champion"]:
        console.print(f"pull:  oncoshift score --model models:/{summary['model']}@champion TILE.jpg", markup=False)


def main(argv: list[str] | None = None) -> int:
    """Run the flow once; 0 when it is done, 2 for what the user can mend, 75 when SIGTERM stopped it."""
    parser = argparse.ArgumentParser(prog="python -m flows.retrain", description=__doc__)
    parser.add_argument("--preset", metavar="NAME")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--force", action="store_true", help="train even if nothing has changed")
    given = parser.parse_args(argv)
    stop_on_sigterm()
    try:
        summary = retrain(preset=given.preset, overrides=given.overrides, force=given.force)
    except OncoshiftError as error:
        print(f"{error.heading}: {error}", file=sys.stderr)
        return error.exit_code
    report(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
