"""The DVC stages `train`, `evaluate` and `explain`: the one experiment in params.yaml, by hand, into `outputs/`.

They train through the same jobs as the retraining flow, so a job that either has done is not trained again.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pandas as pd
from sklearn.metrics import roc_curve

from oncoshift.data.names import as_cell, without_formula
from oncoshift.errors import TrainingError
from oncoshift.evaluation.domains import by_organ, evaluate_domains
from oncoshift.evaluation.plots import confusion_figure, reliability_figure, roc_figure
from oncoshift.experiment_jobs import ExperimentJobs
from oncoshift.files import DamagedFileError
from oncoshift.training.job import read_trained

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oncoshift.evaluation.domains import Report
    from oncoshift.explain.explanation import Explanation
    from oncoshift.layout import Layout
    from oncoshift.settings import Settings
    from oncoshift.training.job import Job, TrainedJob
    from oncoshift.training.loop import EpochHook

_RESULT = ("weights.safetensors", "job.json", "done.json")


def train(layout: Layout, settings: Settings, on_epoch: EpochHook) -> Path:
    """Train the method, variant and seed of params.yaml into outputs/train.

    Returns:
        The folder.
    """
    jobs = ExperimentJobs.open(layout, settings.train.variant, settings.sources)
    trained = jobs.train(jobs.job(settings), on_epoch)
    folder = _empty(layout.outputs / "train")
    for name in _RESULT:
        shutil.copyfile(trained.folder / name, folder / name)
    pd.DataFrame(trained.history).to_csv(folder / "history.csv", index=False)
    return folder


def evaluate(layout: Layout, settings: Settings) -> Report:
    """Score outputs/train on source_val and test; metrics.json, roc.csv and plots go to outputs/evaluate."""
    jobs, job, trained = _trained(layout, settings)
    table = jobs.predict(job, trained, ("source_val", "test"))
    report = evaluate_domains(table, settings.evaluate)
    folder = _empty(layout.outputs / "evaluate")
    (folder / "metrics.json").write_text(json.dumps(report.to_dict(), indent=1))
    (folder / "report.md").write_text(report.to_markdown())
    curves = []
    for tiles in by_organ(table):
        false, true, _ = roc_curve(tiles.labels, tiles.probabilities[0])
        curves.append(pd.DataFrame({"organ": tiles.organ, "false_positive_rate": false, "true_positive_rate": true}))
    pd.concat(curves).to_csv(folder / "roc.csv", index=False)
    roc_figure(table).savefig(folder / "roc.png")
    reliability_figure(table, settings.evaluate.calibration_bins).savefig(folder / "reliability.png")
    confusion_figure(table).savefig(folder / "confusion.png")
    return report


def explain(layout: Layout, settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> Explanation:
    """Integrated Gradients of outputs/train on target tiles, to outputs/explain."""
    jobs, job, trained = _trained(layout, settings)
    explanation = jobs.explain(job, trained, on_progress)
    folder = _empty(layout.outputs / "explain")
    explanation.figure.savefig(folder / "integrated_gradients.png")
    table = explanation.table
    safe = table.assign(tile_id=table["tile_id"].map(without_formula), group=table["group"].map(as_cell))
    safe.to_csv(folder / "integrated_gradients.csv", index=False)
    (folder / "summary.json").write_text(json.dumps(explanation.as_dict(), indent=1))
    return explanation


def _trained(layout: Layout, settings: Settings) -> tuple[ExperimentJobs, Job, TrainedJob]:
    """The job in outputs/train, which DVC may have restored from its cache."""
    jobs = ExperimentJobs.open(layout, settings.train.variant, settings.sources)
    folder = layout.outputs / "train"
    job = jobs.job(settings)
    try:
        return jobs, job, read_trained(job.id, folder)
    except FileNotFoundError:
        raise TrainingError(f"{folder}: nothing trained here; run `dvc repro train` first") from None
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}; remove {folder} and run `dvc repro train`") from None


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
