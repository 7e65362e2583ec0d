"""The exponential moving average of a network's weights, which is validated and kept.

After Polyak and Juditsky (1992).
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from oncoshift.models.network import AdaptationNet


# Not torch's AveragedModel: it copies the first step's weights, which gives other bits, and reads
# its counter from the device twice a step, which makes a GPU wait.
class WeightAverage:
    """θ̄ ← θ̄ + (1 − decay_t)(θ − θ̄), with decay_t = min(decay, (1 + t) / (10 + t)) at step t.

    The lower decay at the start lets a short training forget its initial weights. Buffers, which
    are BatchNorm's own running averages, are copied.

    Attributes:
        net: a network with the averaged weights.
    """

    def __init__(self, net: AdaptationNet, decay: float) -> None:
        self.decay = decay
        self.net = deepcopy(net).requires_grad_(False)

    @torch.no_grad()
    def update(self, net: AdaptationNet, step: int) -> None:
        """Update the average with the weights after a step, counted from 0 over the training."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.net.parameters()), list(net.parameters()), weight)
        pairs = list(zip(self.net.buffers(), net.buffers(), strict=True))
        for dtype in {mine.dtype for mine, _ in pairs}:  # as one operation takes one type
            same = [pair for pair in pairs if pair[0].dtype == dtype]
            torch._foreach_copy_([mine for mine, _ in same], [theirs for _, theirs in same])
