"""DANN with a discriminator over all organs: a softmax over the source organs and the target.

With organ o of a tile (0 … S − 1 the sources, S the target), one step minimises

    CE(C(z_source), y) + weight · CE(D(R_λ(z)), o),  D(z) [N, S + 1].

So the sources are aligned with one another as well, and a target that resembles one of them does
not pass as aligned with all. It is the multi-class form of Ganin et al. 2016 (arXiv 1505.07818);
Zhao et al. 2018 (MDAN, arXiv 1705.09684) study several sources with a binary head for each. The
mean is over tiles: with batches balanced over organs, the target weighs as much as all sources
together, and an accuracy of one half is chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from oncoshift.methods.adversary import Adversary
from oncoshift.models.heads import build_head

if TYPE_CHECKING:
    from oncoshift.methods.alignment import Setup, Step
    from oncoshift.settings.methods import DannMultiSettings


class DannMulti(Adversary):
    """A domain loss with one logit per organ; label shift weights each source organ separately."""

    def __init__(self, setup: Setup, settings: DannMultiSettings) -> None:
        super().__init__(build_head(setup.width, settings.hidden, setup.organs + 1), setup, settings)

    def group_sources(self, step: Step) -> Tensor:
        """Return the organ of each source tile: each organ is a domain."""
        return step.organs

    def compute_domain_loss(self, logits: Tensor, step: Step, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute cross-entropy and accuracy of logits [B + T, S + 1]; see the base class."""
        organs = torch.cat([step.organs, step.organs.new_full((len(step.target_logits),), self.setup.organs)])
        return organ_cross_entropy(logits, organs, weights), (logits.detach().argmax(1) == organs).float().mean()


def organ_cross_entropy(logits: Tensor, organs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the mean cross-entropy of logits [N, S + 1] and organs int64 [N], with weights [N].

    Raises:
        ValueError: the shapes do not fit.
    """
    if logits.ndim != 2 or organs.shape != logits.shape[:1] or (weights is not None and weights.shape != organs.shape):
        shapes = [list(values.shape) for values in (logits, organs, weights) if values is not None]
        raise ValueError(f"expected logits [N, organs], organs [N] and weights [N], got {shapes}")
    losses = F.cross_entropy(logits.float(), organs, reduction="none")
    return (losses if weights is None else losses * weights).mean()
