"""The retraining flow, from data to gate.

    python -m flows.retrain [--preset NAME] [--set KEY=VALUE] [--name NAME] [--force]

The recipe is `oncoshift.retraining.recipe`; its steps become Prefect tasks with retries and the
`gpu` limit.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import httpx
from prefect import flow, get_client, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows import PROJECT
from flows.approval import ask_for_approval, read_own_answer
from flows.endings import StoppableTask, ending_in_a_state
from flows.parameters import Method, Preset, collect_overrides, load_chosen_settings
from flows.runs import RUNNER, end_dead_runs, ensure_gpu_limit, holding_gpu, is_scheduled
from flows.server import ensure_server
from oncoshift import cli
from oncoshift.commands.retraining import show
from oncoshift.errors import OncoshiftError, RegistryError, SettingsError
from oncoshift.experiments import hold_experiment
from oncoshift.files import FULL
from oncoshift.program import run_program
from oncoshift.registry.tracking import Tracker
from oncoshift.registry.views import RETRAININGS, build_artifact_path, build_run_path, build_view_path
from oncoshift.retraining import prepare, recipe, recorded
from oncoshift.retraining.approval import answer_request
from oncoshift.retraining.summary import REPORT, Outcome
from oncoshift.secrets import remove_credentials
from oncoshift.settings import load_settings
from oncoshift.settings.base import Organ
from oncoshift.training.interruption import stop_on_sigterm

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from prefect.client.schemas.objects import TaskRun
    from prefect.tasks import Task

    from oncoshift.retraining.session import RetrainingPlan

P = ParamSpec("P")
R = TypeVar("R")


def should_retry(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    """Return whether to retry: after a transient fault, but not after a user error."""
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
    "retry_condition_fn": should_retry,
    "cache_policy": NO_CACHE,
}


def as_task(name: str, step: Callable[P, R], run_name: str | None = None) -> Task[P, R]:
    """Wrap a step of the recipe in a Prefect task."""
    return StoppableTask(step, name=name, task_run_name=run_name, **RETRYING)


def hold_gpu(step: Callable[P, R]) -> Callable[P, R]:
    """Hold the GPU limit while a step runs."""

    @wraps(step)
    def hold_and_run(*args: P.args, **kwargs: P.kwargs) -> R:
        with holding_gpu(str(flow_run.id), get_run_logger().info):
            return step(*args, **kwargs)

    return hold_and_run


STEPS = recipe.Steps(
    data=as_task("data", prepare.prepare_data),
    choose=as_task("choose", hold_gpu(recorded.choose)),
    tune=as_task("tune", hold_gpu(recorded.tune)),
    train=as_task("train", hold_gpu(recorded.train), "train-{method}-{number}"),
    evaluate=as_task("evaluate", recorded.evaluate),
    select=as_task("select", hold_gpu(recorded.select)),
    explain=as_task("explain", recorded.explain),
    register=as_task("register", recorded.register),
    gate=as_task("gate", recorded.gate),
)


def name_retraining() -> str:
    """Name the current run by what it does."""
    try:
        target = load_chosen_settings(flow_run.parameters, trusted=not is_scheduled()).target
    except SettingsError:  # the flow says what is wrong
        return "retrain"
    return f"retrain {target}"


@flow(name="retrain", flow_run_name=name_retraining, validate_parameters=False)
@ending_in_a_state
def retrain(
    target: Organ | None = None,
    sources: list[Organ] | None = None,
    method: Method | None = None,
    preset: Preset | None = None,
    overrides: list[str] | None = None,
    force: bool = False,
    name: str | None = None,
) -> State[Outcome]:
    """Adapt the classifier of one target, judge it and promote it, unless nothing has changed.

    Args:
        target: organ to adapt to, such as kidney. Nothing here: as in preset or params.yaml.
        sources: labelled organs to learn from, such as lung. Nothing here: as in preset or
            params.yaml.
        method: how to adapt. Nothing here: as in preset or params.yaml.
        preset: settings on top of params.yaml, from the folder presets/ or from tuning.
        overrides: any other settings on top of those, such as train.epochs=20.
        force: train again even if nothing has changed.
        name: folder of the experiment in experiments/. Nothing here: derived from the above.

    Returns:
        A state named Promoted, Refused, Awaiting or Unchanged with the `Outcome` as its data. With
        `gate.approval: human`, a scheduled run is suspended until a person has answered.
    """
    plan = prepare.make_plan(
        PROJECT,
        preset=preset,
        overrides=collect_overrides(target, sources, method, overrides),
        force=force,
        environ=os.environ,
        say=get_run_logger().info,
        name=name,
        trusted=not is_scheduled(),
    )
    with hold_experiment(plan.layout):
        ensure_gpu_limit()
        if is_scheduled() and RUNNER not in os.environ:  # a worker, where no `flows.serve` looks for them
            for run in end_dead_runs(own=False):
                plan.say(f"run {run!r} was killed earlier; Prefect now shows it as Crashed")
        resumed = settle_own_request(plan)
        outcome = recipe.retrain(plan, STEPS)
        if outcome.summary.action == "await":
            name_run(f"retrain {outcome.summary.target}: version {outcome.summary.version} awaits approval")
            ask_for_approval(outcome.summary)
        # A resumed run finds the retraining finished, by itself.
        return publish(Outcome(outcome.summary) if resumed else outcome)


def settle_own_request(plan: RetrainingPlan) -> bool:
    """Settle what this run asked for before it was suspended; return whether it was."""
    if (found := read_own_answer()) is None:
        return False
    version, answer = found
    tracker = Tracker(plan.uri, plan.settings.tracking.experiment)
    try:
        approval = answer_request(tracker, plan.settings.registered_model, version, answer)
        plan.say(f"version {version}: {approval.words}")
    except RegistryError as error:  # its version is gone, or was judged again
        plan.say(str(error))
    return True


def publish(outcome: Outcome) -> State[Outcome]:
    """Show the outcome in the Prefect UI as run name, artifacts and the returned state."""
    summary = outcome.summary
    key = f"retrain-{summary.target}"
    create_markdown_artifact(outcome.to_markdown(), key=key, description="source-only against adapted, verdict, gate")
    paths = {
        "report": build_artifact_path(summary.experiment, summary.run, REPORT),
        "run": build_run_path(summary.experiment, summary.run),
        "retrainings": build_view_path(summary.experiment, RETRAININGS),
    }
    for name, path in paths.items():
        link_to_mlflow(path, name, f"{key}-{name}")
    name_run(f"retrain {summary.target}: {outcome.name.lower()}, {outcome.champion}")
    return Completed(name=outcome.name, message=outcome.message, data=outcome)


def link_to_mlflow(path: str, text: str, key: str) -> None:
    """Show a link to a page of the MLflow UI in the Prefect UI."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    base = remove_credentials(server) if server.startswith("http") else "http://127.0.0.1:5000"
    link = f"{base.rstrip('/')}/{path}"
    create_link_artifact(link, text, key=key, description="needs `make ui`, or the MLflow server")


def name_run(name: str) -> None:
    """Rename the current flow run; a failure to do so is ignored."""
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name)


def main(argv: list[str] | None = None) -> int:
    """Run the flow once with the options of `oncoshift retrain`; return its exit code."""
    given = cli.build_parser().parse_args(["retrain", *(sys.argv[1:] if argv is None else argv)])
    return run_program(lambda: run_once(given))


def run_once(given: argparse.Namespace) -> None:
    """Run the flow with a server and print the outcome; settings are checked first."""
    stop_on_sigterm()
    if given.params is not None and given.params.resolve() != PROJECT / "params.yaml":
        raise SettingsError(f"retrain reads {PROJECT / 'params.yaml'}; change settings by --preset or --set")
    load_settings(PROJECT / "params.yaml", preset=given.preset, overrides=tuple(given.overrides))
    with ensure_server() as own:
        end_dead_runs(own=own)
        chosen: dict[str, Any] = {"preset": given.preset, "overrides": given.overrides}
        state = retrain(**chosen, force=given.force, name=given.name, return_state=True)
    outcome: Any = state.result()
    show(outcome)


if __name__ == "__main__":
    sys.exit(main())
