"""Conditional adversarial domain adaptation, CDAN and CDAN+E (Long et al. 2018, arXiv 1705.10667).

As DANN, but the domain head sees the multilinear map of prediction and feature,

    D(R_λ(vec(g ⊗ z))),  g = softmax(C(z)) [N, 2],  g ⊗ z [N, 2 · width],

so it compares malignant tiles with malignant ones, as far as the predictions go. g is a constant here, as in the
authors' code: the trunk hides the domain by moving z, not by doubting its predictions. With entropy weighting (+E) a
tile counts with 1 + exp(−H(g)), scaled to mean 1 in each domain: tiles that are sure of their class come first.
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
    """DANN's domain loss on the multilinear map; see the module."""

    settings: CdanSettings

    def __init__(self, setup: Setup, settings: CdanSettings) -> None:
        super().__init__(setup._replace(width=2 * setup.width), settings)

    def compute_head_input(self, step: Step) -> Tensor:
        """The multilinear map [B + T, 2 · width]."""
        return multilinear_map(torch.cat([step.source_logits, step.target_logits]), step.z)

    def weigh_tiles(self, step: Step) -> Tensor | None:
        """Label shift's weights times those of entropy; see `Adversary.weigh_tiles`."""
        weights = super().weigh_tiles(step)
        if not self.settings.entropy_weighting:
            return weights
        source, target = certainty(step.source_logits), certainty(step.target_logits)
        if weights is not None:
            source, target = source * weights[: step.sources], target * weights[step.sources :]
        return torch.cat([source / source.mean(), target / target.mean()])


def multilinear_map(logits: Tensor, z: Tensor) -> Tensor:
    """Outer products of softmax(logits [N, C]) and z [N, width], as rows [N, C · width]: class 0's part first.

    Gradients go to z alone.

    Raises:
        ValueError: there is not one row of logits for each feature.
    """
    if logits.ndim != 2 or z.ndim != 2 or len(logits) != len(z):
        raise ValueError(f"expected logits [N, C] and features [N, width], got {list(logits.shape)}, {list(z.shape)}")
    return (logits.detach().float().softmax(1)[:, :, None] * z[:, None, :]).flatten(1)


def certainty(logits: Tensor) -> Tensor:
    """1 + exp(−H(softmax(logits [N, C]))), float32 [N], from 1 + 1/C to 2; without gradient."""
    return 1.0 + torch.exp(-entropy(logits.detach()))
