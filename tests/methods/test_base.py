"""The label loss agrees with values computed by hand, and follows its settings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.methods.base import Batch, label_cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oncoshift.settings import Settings

LOGITS, LABELS = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]), torch.tensor([1, 0])


@pytest.mark.parametrize(
    ("smoothing", "first"),
    # The first tile's probabilities are ¼ and ¾: −ln ¾, and with s = 0.2 its target is 0.1 and 0.9.
    [(0.0, -math.log(0.75)), (0.2, -0.1 * math.log(0.25) - 0.9 * math.log(0.75))],
)
def test_cross_entropy_with_smoothed_labels(smoothing: float, first: float) -> None:
    loss, figures = label_cross_entropy(LOGITS, LABELS, smoothing)
    assert loss.item() == pytest.approx((first + math.log(2.0)) / 2)
    assert figures["label_loss"].item() == pytest.approx(loss.item())
    assert figures["source_train_accuracy"].item() == 1.0


@pytest.mark.parametrize("method", ["erm", "dann"])
def test_methods_smooth_as_the_settings_say(
    settings_for: Callable[..., Settings], build: Callable[..., Any], method: str
) -> None:
    x, labels = torch.randn(4, 512, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])
    losses = {}
    for smoothing in (0.0, 0.4):
        built = build(settings_for(method, 0, train={"label_smoothing": smoothing})).eval()
        _, figures = built(Batch(x, labels, torch.zeros_like(labels), x), epoch=0, progress=0.0)
        losses[smoothing] = figures["label_loss"].item()
        logits = built.net.logits(built.net.features(x))
    even = -logits.log_softmax(1).mean().item()  # cross-entropy against even proportions
    assert losses[0.4] == pytest.approx(0.6 * losses[0.0] + 0.4 * even, rel=1e-5)
    assert losses[0.4] != pytest.approx(losses[0.0], rel=1e-6)
