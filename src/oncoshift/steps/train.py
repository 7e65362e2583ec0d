"""Step `train`: train one network, from the start or the last checkpoint, or reuse its result."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.anchors.values import describe_anchor
from oncoshift.labels.table import OF_PRIOR, describe_labels
from oncoshift.markdown import escape
from oncoshift.methods.registry import METHODS
from oncoshift.training.diagnostics import list_findings

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import Recorder
    from oncoshift.training.epoch import Epoch, EpochHook
    from oncoshift.training.job import Job, TrainedJob


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        trained: its job.
        findings: faults that its metrics reveal, one sentence each.
    """

    trained: TrainedJob
    findings: tuple[str, ...]

    def record(self, recorder: Recorder) -> None:
        """Save the result's files, the epochs' metrics, and the findings."""
        recorder.fill_folder(self.trained.export)
        recorder.log_epochs(self.trained.history)
        settings = self.trained.job.settings
        if settings.reads_anchor:
            recorder.set_tags({"oncoshift.anchor": describe_anchor(settings.anchor)})
        notes = list(self.findings)
        if METHODS[settings.train.method].reads_labels:
            recorder.set_tags({"oncoshift.target_labels": describe_labels(self.trained.last)})
            notes.append(f"source_accuracy, and whatever else is measured on the sources, is {OF_PRIOR}")
        if self.findings:
            recorder.set_tags({"oncoshift.findings": "; ".join(self.findings)})
        if notes:
            recorder.set_tags({"mlflow.note.content": "\n".join(f"- {escape(note)}" for note in notes)})


def run(
    jobs: ExperimentJobs, job: Job, on_epoch: EpochHook, on_features: Callable[[int, int], None] | None = None
) -> Training:
    """Train a job, resume it, or return its result if it is done.

    Args:
        jobs: of the experiment.
        job: what to train.
        on_epoch: see `training.job.train_job`, also for the errors.
        on_features: see there.
    """
    trained = jobs.train(job, on_epoch, on_features)
    return Training(trained, list_findings(trained.history, job.settings))


def make_epoch_reporter(say: Callable[[str], None], label: str, epochs: int) -> EpochHook:
    """Make a hook that reports each epoch in one line.

    Epochs trained before the hook was made are summarised in one line.

    Args:
        say: receives each line.
        label: name of the training.
        epochs: total number of epochs.
    """
    began, behind = int(1000 * time.time()), 0

    def report(epoch: Epoch) -> None:
        nonlocal behind
        if epoch.ended_ms < began:
            behind = epoch.number + 1
            return
        if behind:
            say(f"{label}: goes on after epoch {behind}/{epochs}")
            behind = 0
        say(f"{label}: {epoch.to_line(epochs)}")

    return report
