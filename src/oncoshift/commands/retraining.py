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

from oncoshift.errors import OncoshiftError, TrainingInterrupted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from oncoshift.commands.context import Context

_PLATFORM = ("torch", "torchvision", "mlflow", "prefect", "optuna", "dvc", "captum", "staintools")


class FlowError(OncoshiftError):
    """The retraining flow failed; its own output says why."""


def add_retrain(parser: argparse.ArgumentParser) -> None:
    """Options of `retrain`."""
    parser.add_argument("--force", action="store_true", help="train even if nothing has changed")


def retrain(context: Context) -> None:
    """Run the Prefect flow in a process of its own; nothing in this package imports Prefect."""
    given, project = context.arguments, context.project
    context.need_project_params()
    context.settings  # noqa: B018 - a wrong setting is told here, before Prefect starts
    preset = str(Path(given.preset).resolve()) if given.preset and given.preset.endswith(".yaml") else given.preset
    options = [*(["--preset", preset] if preset else []), *(["--force"] if given.force else [])]
    for override in given.overrides:
        options += ["--set", override]
    command = [sys.executable, "-m", "flows.retrain", *options]
    code = _run(command, project)
    if code in (TrainingInterrupted.exit_code, -signal.SIGTERM):
        raise TrainingInterrupted("the retraining was asked to end; start it again and it goes on from there")
    if code == 2:
        raise FlowError("nothing was lost: mend that, and start it again")
    if code:
        raise FlowError(f"the retraining ended with code {code}; start it again and it goes on from there")


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
