"""Heads of adversarial methods: a linear layer, or an MLP with two hidden layers."""

from __future__ import annotations

from torch import nn


def build_head(width: int, hidden: int, outputs: int) -> nn.Module:
    """Build a head, feature [N, width] to logits [N, outputs].

    With `hidden` 0 it is a single linear layer, as in arXiv 2601.14678.
    """
    if hidden == 0:
        return nn.Linear(width, outputs)
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
