"""Stage `train` reports its progress, and the epoch from which it resumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

from oncoshift.commands.stages import train
from oncoshift.layout import Layout
from oncoshift.settings import Settings, replace_values
from oncoshift.training.epoch import Epoch

if TYPE_CHECKING:
    import pytest

    from oncoshift.training.epoch import EpochHook


def test_a_stage_that_goes_on_says_after_which_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_jobs: object, _job: object, tell: EpochHook) -> Mock:
        for epoch, when in enumerate((1000.0, 2000.0, 1e15)):
            figures = {"epoch_seconds": 1.0, "source_accuracy": 0.9, "information_maximisation": 0.5}
            tell(Epoch({"epoch": float(epoch), "timestamp_ms": when, **figures}))
        return Mock()

    monkeypatch.setattr("oncoshift.steps.train.run", run)
    monkeypatch.setattr("oncoshift.steps.jobs.ExperimentJobs.open", Mock())
    monkeypatch.chdir(tmp_path)
    train(Mock(settings=replace_values(Settings(), {"train.epochs": 3}), layout=Layout(Path())))
    assert capsys.readouterr().out.splitlines() == [
        "train: goes on after epoch 2/3",
        "train: epoch 3/3, source accuracy 0.900, IM 0.500, 1.0 s",
        "train: outputs/train",
    ]
