"""What domain-adversarial terms share: a domain head behind gradient reversal, its weight, and weights of tiles.

Each minimises weight · CE(D(R_λ(x)), d) where x is what the head sees of a tile, d its domain, and R_λ the identity
forward and −λ backward: D learns to tell the domains apart and the trunk to hide them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from oncoshift.methods.alignment import Setup, Step, Term
from oncoshift.methods.label_shift import TargetShares, weigh_sources
from oncoshift.models.reversal import reversal_strength, reverse_gradient

if TYPE_CHECKING:
    from oncoshift.settings.methods import DomainHeadSettings


class Adversary(Term):
    """A domain head and how strongly the trunk works against it.

    Attributes:
        head: what it sees [N, inputs] → domain logits.
        shares: estimate of the target's class proportions; None where `label_shift` is none.
    """

    settings: DomainHeadSettings

    def __init__(self, head: nn.Module, setup: Setup, settings: DomainHeadSettings) -> None:
        super().__init__(setup, settings)
        self.head = head
        self.shares = TargetShares() if settings.label_shift == "reweight" else None

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Term.forward`.

        The head's accuracy is logged beside its loss: a loss at the entropy of the domains can be equilibrium or a
        dead head.
        """
        settings = self.settings
        strength = reversal_strength(
            settings.schedule, settings.max_lambda, step.epoch, self.setup.epochs, step.progress
        )
        logits = self.head(reverse_gradient(self.compute_head_input(step), strength))
        loss, accuracy = self.compute_domain_loss(logits, step, self.weigh_tiles(step))
        figures = {"domain_loss": loss.detach(), "domain_accuracy": accuracy, "lambda": torch.tensor(strength)}
        if self.shares is not None:
            figures["target_malignant_estimate"] = self.shares.shares[1].clone()
        return settings.weight * loss, figures

    def compute_head_input(self, step: Step) -> Tensor:
        """What the head sees of each tile, [B + T, inputs]: the shared feature."""
        return step.z

    def group_sources(self, step: Step) -> Tensor:
        """int64 [B], the source tiles that stand for one domain: all of them."""
        return torch.zeros_like(step.organs)

    def weigh_tiles(self, step: Step) -> Tensor | None:
        """Weight of each tile in the domain loss, float32 [B + T] of mean 1 in each domain, or None for all 1."""
        if self.shares is None:
            return None
        source = weigh_sources(step.labels, self.group_sources(step), self.shares(step.target_logits))
        return torch.cat([source, source.new_ones(len(step.target_logits))])

    @abstractmethod
    def compute_domain_loss(self, logits: Tensor, step: Step, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Domain loss of the head's logits, and its detached accuracy, both scalars."""
