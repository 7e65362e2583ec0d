"""The average of weights agrees with values computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from oncoshift.training.average import WeightAverage


def network(weight: float, mean: float) -> Any:
    net: Any = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, affine=False))
    with torch.no_grad():
        net[0].weight.fill_(weight)
        net[1].running_mean.fill_(mean)
    return net


def test_weights_are_averaged_and_statistics_copied() -> None:
    average = WeightAverage(network(1.0, 5.0), decay=0.15)
    average.update(network(2.0, 6.0), step=0)
    assert average.net[0].weight.item() == pytest.approx(0.1 * 1.0 + 0.9 * 2.0), "at the start 1 / 10 is kept"
    assert average.net[1].running_mean.item() == 6.0
    average.update(network(3.0, 7.0), step=100)
    assert average.net[0].weight.item() == pytest.approx(0.15 * 1.9 + 0.85 * 3.0)
    assert average.net[1].num_batches_tracked.dtype == torch.int64


def test_the_average_is_apart_from_the_network_and_is_not_trained() -> None:
    net = network(1.0, 0.0)
    average = WeightAverage(net, decay=0.9)
    with torch.no_grad():
        net[0].weight.fill_(9.0)
    assert average.net[0].weight.item() == 1.0
    assert not average.net[0].weight.requires_grad
    assert net[0].weight.requires_grad
