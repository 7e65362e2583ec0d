"""What stage `train` says while it trains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from unittest.mock import Mock

from oncoshift.commands.stages import train
from oncoshift.settings import Settings, with_values

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def test_a_stage_that_goes_on_says_after_which_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_layout: object, _settings: object, tell: Callable[[dict[str, float]], None]) -> str:
        for epoch, when in enumerate((1000.0, 2000.0, math.inf)):
            tell({"epoch": float(epoch), "timestamp_ms": when, "epoch_seconds": 1.0, "source_accuracy": 0.9,
                  "information_maximisation": 0.5})  # fmt: skip
        return "outputs/train"

    monkeypatch.setattr("oncoshift.stages.train", run)
    train(Mock(settings=with_values(Settings(), {"train.epochs": 3})))
    assert capsys.readouterr().out.splitlines() == [
        "train: goes on after epoch 2/3",
        "train: epoch 3/3, source accuracy 0.900, IM 0.500, 1.0 s",
        "train: outputs/train",
    ]
