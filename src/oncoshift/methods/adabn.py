"""Adaptive batch normalisation, AdaBN (Li et al. 2016, arXiv 1603.04779).

Training is source-only, and BatchNorm gets the target's statistics. The loss is that of `erm`,
CE(C(z_source), y), with BatchNorm on the statistics of source batches. After each epoch, one pass
over all target tiles gives every trained BatchNorm the target's mean and variance of each channel,

    μ = Σ_b n_b μ_b / Σ_b n_b,   σ² = Σ_b n_b σ²_b / Σ_b n_b,

where μ_b and σ²_b are those of batch b with n_b tiles, whose earlier layers use the batch's own
statistics; there is no gradient. Normalising target tiles by these removes shifts between domains
that are a scale and an offset of a channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from oncoshift.methods.erm import Erm
from oncoshift.models.batch_norm import DomainBatchNorm2d

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from oncoshift.models.network import AdaptationNet


class AdaBn(Erm):
    """Cross-entropy on source tiles; target tiles only give statistics."""

    calibrates = True

    @torch.no_grad()
    def calibrate(self, net: AdaptationNet, target: Iterable[Tensor]) -> None:
        """Replace the target's statistics by those of one pass; see `Method.calibrate`."""
        layers = [module for module in net.modules() if isinstance(module, DomainBatchNorm2d) and module.per_domain]
        was_training, momenta = net.training, [layer.momentum for layer in layers]
        net.eval()
        for layer in layers:
            layer.train()
        seen = 0
        for x in target:
            if len(x) == 1:
                continue  # a single tile may have no variance; only the last batch can be this small
            seen += len(x)
            for layer in layers:
                layer.momentum = len(x) / seen
            net.features(x, sources=0)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        net.train(was_training)
