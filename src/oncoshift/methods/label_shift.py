"""Label shift: weights that bring source tiles to the class proportions estimated for the target.

Alignment of whole domains is wrong where class proportions differ: to hide the domain, the feature
must then move malignant tiles among benign ones (Zhao et al. 2019, arXiv 1901.09453; Tachet des
Combes et al. 2020, arXiv 2003.04475). So the domain loss weights a source tile of label y by

    w(y) = q(y) / p(y),

where p are the proportions in the source batch and q those of the target. q is the model's own mean
prediction on target batches, as an exponential moving average, kept away from 0 and 1: no target
label is read. It is not corrected by the model's confusion on the sources (BBSE, Lipton 2018), so
it lags, and leans towards what the model believes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
"""Decay of the average per batch or micro-batch; about the last 20 of them count."""

MIN_SHARE = 0.1
"""Least share of a class before normalisation, so that a constant predictor drops none."""


class TargetShares(nn.Module):
    """A running estimate of the target's class proportions, kept in the checkpoint.

    Attributes:
        shares: float32 [classes], positive, with sum 1; uniform at the start.
    """

    shares: Tensor

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.register_buffer("shares", torch.full((classes,), 1.0 / classes))

    @torch.no_grad()
    def forward(self, target_logits: Tensor) -> Tensor:
        """Update the average by logits [T, classes]; return the clipped shares [classes]."""
        mean = target_logits.detach().float().softmax(1).mean(0)
        self.shares.mul_(MOMENTUM).add_(mean, alpha=1.0 - MOMENTUM)
        clipped = self.shares.clamp(min=MIN_SHARE)
        return clipped / clipped.sum()


def weigh_sources(labels: Tensor, groups: Tensor, shares: Tensor) -> Tensor:
    """Weigh source tiles so that each group's labels have the proportions `shares`.

    Weights have mean 1 in each group.

    Args:
        labels: int64 [B].
        groups: int64 [B], one number for all tiles, or the organs.
        shares: float32 [classes], the wanted proportions.

    Returns:
        float32 [B]. In a group without one of the classes the others share what is left by their
        proportions.

    Raises:
        ValueError: labels and groups are not both [B].
    """
    if labels.ndim != 1 or labels.shape != groups.shape:
        raise ValueError(f"expected labels and groups of shape [B], got {list(labels.shape)}, {list(groups.shape)}")
    same_group = groups[:, None] == groups[None, :]
    same_cell = same_group & (labels[:, None] == labels[None, :])
    size = same_group.sum(1)
    weights = shares[labels] * size / same_cell.sum(1)
    return weights * size / (same_group * weights).sum(1)
