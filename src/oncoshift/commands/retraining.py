"""Commands around the retraining flow: start it, compare what it did, check the machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from oncoshift.errors import CRASHED, INTERRUPTED, OncoshiftError, TrainingInterrupted, UnavailableError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from oncoshift.commands.context import Context

_PLATFORM = ("torch", "torchvision", "mlflow", "prefect", "optuna", "dvc", "captum", "staintools")


class FlowError(OncoshiftError):
    """The retraining flow failed; its own output says why.

    Args:
        advice: what to do now.
        exit_code: the flow's own.
    """

    def __init__(self, advice: str, exit_code: int) -> None:
        super().__init__(advice)
        self.exit_code = exit_code


def add_retrain(parser: argparse.ArgumentParser) -> None:
    """Options of `retrain`."""
    parser.add_argument("--force", action="store_true", help="train even if nothing has changed")
    add_name(parser)


def add_name(parser: argparse.ArgumentParser) -> None:
    """The option of the commands that make experiments."""
    parser.add_argument("--name", help="of the experiment's folder below experiments/; default: made of the settings")


def retrain(context: Context) -> None:
    """Run the Prefect flow in a process of its own; nothing in this package imports Prefect."""
    from oncoshift.experiments import experiment_layout

    given, project = context.arguments, context.project
    context.need_project_params()
    context.settings  # noqa: B018 - a wrong setting is told here, before Prefect starts
    preset = str(Path(given.preset).resolve()) if given.preset and given.preset.endswith(".yaml") else given.preset
    options = [*(["--preset", preset] if preset else []), *(["--force"] if given.force else [])]
    if given.name is not None:
        experiment_layout(project, given.name)
        options += ["--name", given.name]
    for override in given.overrides:
        options += ["--set", override]
    code = _run([sys.executable, "-m", "flows.retrain", *options], project)
    if code:
        raise _ended(code)


def _ended(code: int) -> OncoshiftError | KeyboardInterrupt:
    """What the flow's exit code means, and what to do; why it failed, the flow has said."""
    if code in (TrainingInterrupted.exit_code, -signal.SIGTERM):
        return TrainingInterrupted("the retraining was asked to end; start it again and it goes on from there")
    if code in (INTERRUPTED, -signal.SIGINT):
        return KeyboardInterrupt()
    if code < 0:
        name = signal.Signals(-code).name
        return FlowError(f"the retraining was killed by {name}; start it again and it goes on from there", 128 - code)
    if code == OncoshiftError.exit_code:
        return FlowError("nothing was lost: mend that, and start it again", code)
    if code == UnavailableError.exit_code:
        return FlowError("nothing was lost: start it again when that answers", code)
    return FlowError("the retraining crashed, see above; what it had done is kept", CRASHED)


def _run(command: Sequence[str], folder: Path) -> int:
    """The exit code of a command, to which SIGTERM is passed on."""
    with subprocess.Popen(command, cwd=folder) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


def compare(context: Context) -> None:
    """List the finished retrainings of the target, newest first: source-only against adapted, gain, verdict, gate."""
    from rich.console import Console
    from rich.table import Table

    from oncoshift.experiments import tracking_uri
    from oncoshift.registry.tracking import Tracker

    settings = context.settings
    tracker = Tracker(tracking_uri(context.project, settings.tracking, os.environ), settings.tracking.experiment)
    runs = tracker.client.search_runs(
        [tracker.experiment_id],
        f"tags.`oncoshift.step` = 'retrain' and tags.`oncoshift.target` = '{settings.target}' "
        "and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
    )
    table = Table(title=f"{settings.target}: balanced accuracy on test tiles", title_justify="left")
    of_run, results = ("run", "backbone", "variant", "seeds"), ("source-only", "adapted", "gain", "verdict", "gate")
    for column in (*of_run, *results, "version"):
        table.add_column(column)
    for run in runs:
        params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
        table.add_row(
            run.info.run_name,
            params.get("model.backbone", ""),
            params.get("train.variant", ""),
            params.get("retrain.seeds", ""),
            *(_method(metrics, params.get(key, "")) for key in ("retrain.control", "train.method")),
            _interval(metrics, "gain/balanced_accuracy", "gain/"),
            tags.get("oncoshift.verdict", ""),
            tags.get("oncoshift.gate", ""),
            tags.get("oncoshift.version", ""),
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _method(metrics: dict[str, float], name: str) -> str:
    return f"{name} {_interval(metrics, f'{name}/balanced_accuracy', f'{name}/balanced_accuracy_')}"


def _interval(metrics: dict[str, float], point: str, ends: str) -> str:
    if point not in metrics:
        return "–"
    return f"{metrics[point]:.3f} [{metrics[f'{ends}low']:.3f}, {metrics[f'{ends}high']:.3f}]"


def doctor(context: Context) -> None:
    """Say what is installed, what is set, and what would stop a retraining."""
    from oncoshift.experiments import tracking_uri
    from oncoshift.secrets import without_credentials

    for name in _PLATFORM:
        try:
            print(f"{name}: {version(name)}")
        except PackageNotFoundError:
            print(f'{name}: absent; pip install "oncoshift[platform]"')
    import torch

    print(f"device: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}, {os.cpu_count()} cores")
    print(f"git: {shutil.which('git') or 'absent; runs will not name a commit'}")
    settings, project = context.settings, context.project
    raw = project / settings.ingest.root
    made = settings.ingest.adapter == "phantom"
    print(f"project: {project}")
    print(f"settings: valid; {settings.target} from {', '.join(settings.sources)}")
    print(f"data: {raw} {'is there' if raw.exists() else 'is made on the first run' if made else 'is MISSING'}")
    print(f"tracking: {without_credentials(tracking_uri(project, settings.tracking, os.environ))}")
