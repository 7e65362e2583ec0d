"""Optimisers and learning rates agree with values computed by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.settings import TrainSettings
from oncoshift.training.optimizers import build_optimizer, compute_learning_rate

if TYPE_CHECKING:
    from typing import Any


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.0, 0.1, 0.2, 0.2, 0.2]),
        ("linear", [0.0, 0.1, 0.2, 0.1, 0.0]),
        ("cosine", [0.0, 0.1, 0.2, 0.1, 0.0]),
    ],
)
def test_the_rate_rises_and_then_follows_the_schedule(schedule: str, expected: Any) -> None:
    settings = TrainSettings(lr=0.2, schedule=schedule, warmup=0.2)  # type: ignore[arg-type]
    assert [compute_learning_rate(settings, at) for at in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx(expected)


def test_cosine_is_one_and_no_line() -> None:
    settings = TrainSettings(lr=0.2, schedule="cosine")
    assert compute_learning_rate(settings, 0.25) == pytest.approx(0.1 * (1 + math.sqrt(0.5)))


def test_warming_up_all_the_time_ends_at_the_rate() -> None:
    assert compute_learning_rate(TrainSettings(lr=0.2, warmup=1.0), 1.0) == 0.2


def test_sgd_is_nesterovs_with_weight_decay() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = build_optimizer([weight], TrainSettings(optimizer="sgd", lr=0.1, momentum=0.5, weight_decay=0.2))
    for expected in (1.0 - 0.1 * 1.5 * 1.2, None):  # g = 1 + 0.2 w; v = g; step = g + 0.5 v
        weight.grad = torch.tensor([1.0])
        optimizer.step()
        if expected is not None:
            assert weight.item() == pytest.approx(expected)
            second = 1 + 0.2 * expected
            velocity = 0.5 * 1.2 + second
            after = expected - 0.1 * (second + 0.5 * velocity)
    assert weight.item() == pytest.approx(after)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_they_are_fused_and_leave_frozen_parameters_out(name: str) -> None:
    frozen, trained = torch.nn.Parameter(torch.zeros(1), requires_grad=False), torch.nn.Parameter(torch.zeros(1))
    (group,) = build_optimizer([frozen, trained], TrainSettings(optimizer=name)).param_groups  # type: ignore[arg-type]
    assert group["fused"]
    assert group["params"] == [trained]
