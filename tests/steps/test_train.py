"""A training reports its epochs while it runs."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING
from unittest.mock import Mock

from oncoshift.registry.tracking import Tracker
from oncoshift.settings import parse_settings
from oncoshift.steps.recorder import Recorder, RunRecorder
from oncoshift.steps.train import Training, make_epoch_reporter
from oncoshift.training.epoch import Epoch
from oncoshift.training.job import Job, TrainedJob

if TYPE_CHECKING:
    from pathlib import Path


def test_epochs_of_a_training_that_goes_on_are_logged_and_only_new_ones_said() -> None:
    said: list[str] = []
    tracker = Mock(spec=Tracker)
    recorder, tell = RunRecorder(tracker, "run", "key"), make_epoch_reporter(said.append, "dann seed 0", 4)
    for epoch, when in enumerate((1000.0, 2000.0, math.inf, math.inf)):
        now = 10_000 * time.time() if when == math.inf else when
        figures = {"epoch_seconds": 1.0, "source_accuracy": 0.9, "information_maximisation": 0.5}
        done = Epoch({"epoch": float(epoch), "timestamp_ms": now, **figures})
        recorder.log_epoch(done)
        tell(done)
    steps = [rows[0][0] for _, rows in (call.args for call in tracker.log_metrics.call_args_list)]
    assert steps == [0, 1, 2, 3]
    assert said[0] == "dann seed 0: goes on after epoch 2/4"
    assert [line.split(",")[0] for line in said[1:]] == ["dann seed 0: epoch 3/4", "dann seed 0: epoch 4/4"]


def test_a_training_by_labels_says_whose_its_figures_of_the_sources_are(tmp_path: Path) -> None:
    figures = {"source_accuracy": 0.9, "benign_labels": 1.0, "malignant_labels": 2.0}
    for method, words in (
        (
            "few_labels",
            "- source_accuracy, and whatever else is measured on the sources, is of the model before labels",
        ),
        ("erm", ""),
    ):
        settings = parse_settings({"train": {"method": method}})
        trained = TrainedJob(Job(settings, "data", "pack", tmp_path, tmp_path), tmp_path, [Epoch(figures)])
        recorder = Mock(spec=Recorder)
        Training(trained, ()).record(recorder)
        tags = {key: text for call in recorder.set_tags.call_args_list for key, text in call.args[0].items()}
        assert tags.get("mlflow.note.content", "").startswith(words)
        assert ("mlflow.note.content" in tags) == bool(words)
