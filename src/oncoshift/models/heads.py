"""The heads that adversarial methods put on the shared feature: one linear layer, or two hidden ones before it."""

from __future__ import annotations

from torch import nn


def build_head(width: int, hidden: int, outputs: int) -> nn.Module:
    """Feature [N, width] → logits [N, outputs]; `hidden` 0 is a single linear layer, as in arXiv 2601.14678."""
    if hidden == 0:
        return nn.Linear(width, outputs)
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
