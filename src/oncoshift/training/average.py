"""Exponential moving average of a network's weights, which is what is validated and kept (Polyak and Juditsky 1992)."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from oncoshift.models.network import AdaptationNet


# Not torch's AveragedModel: it takes the first step's weights as they are, which makes other bits, and reads its
# counter back from the device twice a step, for which a GPU would have to wait.
class WeightAverage:
    """θ̄ ← θ̄ + (1 − decay_t)(θ − θ̄), with decay_t = min(decay, (1 + t) / (10 + t)) at step t.

    The lower decay at the start keeps a short training from remembering its random start. Buffers, which are
    BatchNorm's own running averages, are copied.

    Attributes:
        net: a network with the averaged weights.
    """

    def __init__(self, net: AdaptationNet, decay: float) -> None:
        self.decay = decay
        self.net = deepcopy(net).requires_grad_(False)

    @torch.no_grad()
    def update(self, net: AdaptationNet, step: int) -> None:
        """Take in the weights after a step; steps count from 0 over the whole training."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.net.parameters()), list(net.parameters()), weight)
        for mine, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            mine.copy_(theirs)
