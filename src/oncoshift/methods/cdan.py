"""Conditional adversarial domain adaptation, CDAN and CDAN+E (Long et al. 2018, arXiv 1705.10667).

As DANN, but the domain head's input is the multilinear map of prediction and feature,

    D(R_λ(vec(g ⊗ z))),  g = softmax(C(z)) [N, 2],  g ⊗ z [N, 2 · width],

so it compares tiles of the same predicted class. g is a constant here, as in the authors' code: the
trunk can hide the domain only by moving z, not by changing its predictions. With entropy weighting
(+E) a tile has the weight 1 + exp(−H(g)), scaled to mean 1 in each domain, so that confident
predictions weigh more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from oncoshift.methods.alignment import Setup, Step, entropy
from oncoshift.methods.dann import Dann

if TYPE_CHECKING:
    from oncoshift.settings.methods import CdanSettings


class Cdan(Dann):
    """DANN's domain loss on the multilinear map of prediction and feature."""

    settings: CdanSettings

    def __init__(self, setup: Setup, settings: CdanSettings) -> None:
        super().__init__(setup._replace(width=2 * setup.width), settings)

    def compute_head_input(self, step: Step) -> Tensor:
        """Return the multilinear map [B + T, 2 · width]."""
        return multilinear_map(torch.cat([step.source_logits, step.target_logits]), step.z)

    def weigh_tiles(self, step: Step) -> Tensor | None:
        """Multiply label shift's weights by those of entropy; see `Adversary.weigh_tiles`."""
        weights = super().weigh_tiles(step)
        if not self.settings.entropy_weighting:
            return weights
        source, target = certainty(step.source_logits), certainty(step.target_logits)
        if weights is not None:
            source, target = source * weights[: step.sources], target * weights[step.sources :]
        return torch.cat([source / source.mean(), target / target.mean()])


def multilinear_map(logits: Tensor, z: Tensor) -> Tensor:
    """Compute outer products of softmax(logits) and z: [N, C · width], class 0 first.

    Logits are [N, C], z [N, width]. Gradients go to z alone.

    Raises:
        ValueError: logits and features differ in their number of rows.
    """
    if logits.ndim != 2 or z.ndim != 2 or len(logits) != len(z):
        raise ValueError(f"expected logits [N, C] and features [N, width], got {list(logits.shape)}, {list(z.shape)}")
    return (logits.detach().float().softmax(1)[:, :, None] * z[:, None, :]).flatten(1)


def certainty(logits: Tensor) -> Tensor:
    """Compute 1 + exp(−H(softmax(logits [N, C]))): float32 [N], 1 + 1/C to 2, no gradient."""
    return 1.0 + torch.exp(-entropy(logits.detach()))
