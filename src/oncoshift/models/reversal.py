"""The gradient reversal layer (Ganin & Lempitsky 2015, arXiv 1409.7495) and schedules of λ."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return x unchanged; backward multiplies the gradient by −strength.

    The loss behind it is minimised as usual and must not be negated as well.
    """
    reversed_: Tensor = _Reverse.apply(x, strength)
    return reversed_


def compute_reversal_strength(schedule: str, max_lambda: float, epoch: int, epochs: int, progress: float) -> float:
    """Compute λ of one step.

    Args:
        schedule: `paper` (epoch / epochs)², constant within an epoch; `ganin` 2 / (1 + exp(−10
            progress)) − 1; `constant` 1 throughout.
        max_lambda: factor of the schedule.
        epoch: number of the epoch, from 0.
        epochs: number of epochs in all.
        progress: share of all steps done, from 0 to 1.
    """
    shape = {
        "paper": (epoch / epochs) ** 2,
        "ganin": 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0,
        "constant": 1.0,
    }[schedule]
    return max_lambda * shape
