"""Domain-adversarial training of neural networks, DANN (Ganin et al. 2016, arXiv 1505.07818).

With features z = F(x), class logits C(z), domain logit D(z) and domain d (1 source, 0 target), one
step minimises

    CE(C(z_source), y) + weight · BCE(D(R_λ(z)), d)

where R_λ is the identity forward and −λ backward, so that D learns to separate the domains and F to
make them inseparable. The form of arXiv 2601.14678 has a linear D, weight 1 and λ = (epoch /
epochs)², set once an epoch.
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
    from oncoshift.settings.methods import DomainHeadSettings


class Dann(Adversary):
    """A domain loss with one logit per tile: all sources against the target."""

    def __init__(self, setup: Setup, settings: DomainHeadSettings) -> None:
        super().__init__(build_head(setup.width, settings.hidden, 1), setup, settings)

    def compute_domain_loss(self, logits: Tensor, step: Step, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute binary cross-entropy and accuracy of logits [B + T, 1]; see the base class."""
        flat = logits.squeeze(1)
        domains = torch.zeros(len(flat), device=flat.device)
        domains[: step.sources] = 1.0
        accuracy = ((flat.detach() > 0) == (domains > 0.5)).float().mean()
        return domain_cross_entropy(flat, domains, weights), accuracy


def domain_cross_entropy(logits: Tensor, domains: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the mean binary cross-entropy of logits [N] and domains [N], with weights [N].

    Raises:
        ValueError: the shapes differ. [N] against [N, 1] would broadcast to [N, N] and pair every
            tile with every label, silently.
    """
    if logits.ndim != 1 or logits.shape != domains.shape or (weights is not None and weights.shape != domains.shape):
        shapes = [list(values.shape) for values in (logits, domains, weights) if values is not None]
        raise ValueError(f"expected logits, domains and weights of shape [N], got {shapes}")
    return F.binary_cross_entropy_with_logits(logits, domains, weights)
