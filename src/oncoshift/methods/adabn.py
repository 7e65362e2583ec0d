"""Adaptive batch normalisation, AdaBN (Li et al. 2016, arXiv 1603.04779): source-only, with the target's statistics.

The loss is that of `erm`: CE(C(z_source), y), with BatchNorm on the statistics of source batches. After each epoch, one
pass over all target tiles gives every trained BatchNorm the target's own mean and variance in its channel,

    μ = Σ_b n_b μ_b / Σ_b n_b,   σ² = Σ_b n_b σ²_b / Σ_b n_b,

with μ_b and σ²_b those of batch b of n_b tiles, normalised by themselves up to the layer; without a gradient. Target
tiles are then normalised by these, which undoes what differs between domains as scale and offset of a channel.
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
    """Cross-entropy on source tiles; target tiles give statistics alone."""

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
                continue  # one tile alone may have no variance; at most the last batch is so small
            seen += len(x)
            for layer in layers:
                layer.momentum = len(x) / seen
            net.features(x, sources=0)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        net.train(was_training)
