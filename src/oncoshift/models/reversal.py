"""The gradient reversal layer (Ganin & Lempitsky 2015, arXiv 1409.7495)."""

from __future__ import annotations

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
    """Identity forward; backward multiplies the gradient by −strength.

    The loss behind it is minimised as usual: never negate that loss as well.
    """
    reversed_: Tensor = _Reverse.apply(x, strength)
    return reversed_
