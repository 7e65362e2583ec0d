"""The base of domain-adversarial terms: a domain head behind gradient reversal.

Each term minimises weight · CE(D(R_λ(x)), d), where x is the head's input for a tile, d the tile's
domain, and R_λ the identity forward and −λ backward: D learns to separate the domains, and the
trunk to make them inseparable.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from oncoshift.methods.alignment import Setup, Step, Term
from oncoshift.methods.label_shift import TargetShares, weigh_sources
from oncoshift.models.reversal import compute_reversal_strength, reverse_gradient

if TYPE_CHECKING:
    from oncoshift.settings.methods import DomainHeadSettings


class Adversary(Term):
    """A domain head and the strength with which the trunk opposes it.

    Attributes:
        head: its input [N, inputs] → domain logits.
        shares: estimate of the target's class proportions; None where `label_shift` is none.
    """

    settings: DomainHeadSettings

    def __init__(self, head: nn.Module, setup: Setup, settings: DomainHeadSettings) -> None:
        super().__init__(setup, settings)
        self.head = head
        self.shares = TargetShares() if settings.label_shift == "reweight" else None

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted domain loss; see `Term.forward`.

        The head's accuracy is logged beside its loss, since a loss at the entropy of the domains
        can mean equilibrium or a dead head.
        """
        settings = self.settings
        strength = compute_reversal_strength(
            settings.schedule, settings.max_lambda, step.epoch, self.setup.epochs, step.progress
        )
        logits = self.head(reverse_gradient(self.compute_head_input(step), strength))
        loss, accuracy = self.compute_domain_loss(logits, step, self.weigh_tiles(step))
        figures = {"domain_loss": loss.detach(), "domain_accuracy": accuracy, "lambda": torch.tensor(strength)}
        if self.shares is not None:
            figures["target_malignant_estimate"] = self.shares.shares[1].clone()
        return settings.weight * loss, figures

    def compute_head_input(self, step: Step) -> Tensor:
        """Return the head's input for each tile, [B + T, inputs]: the shared feature."""
        return step.z

    def group_sources(self, step: Step) -> Tensor:
        """Return the domain of each source tile, int64 [B]: the same for all."""
        return torch.zeros_like(step.organs)

    def weigh_tiles(self, step: Step) -> Tensor | None:
        """Return each tile's weight in the domain loss, float32 [B + T]; None if all are 1.

        Weights have mean 1 in each domain.
        """
        if self.shares is None:
            return None
        source = weigh_sources(step.labels, self.group_sources(step), self.shares(step.target_logits))
        return torch.cat([source, source.new_ones(len(step.target_logits))])

    @abstractmethod
    def compute_domain_loss(self, logits: Tensor, step: Step, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute the scalar domain loss of the head's logits, and their detached accuracy."""
