"""Margin disparity discrepancy, MDD (Zhang et al. 2019, arXiv 1904.05801).

Beside the label head C there is an auxiliary head A of the same form. With the predicted classes
h = argmax C(z), one step minimises

    CE(C(z_source), y) + weight · [margin · CE(A(R_λ(z_source)), h_source)
                                   − mean log(1 − softmax(A(R_λ(z_target)))_h)]

where R_λ is the identity forward and −λ backward. So A learns to agree with C on the sources and to
disagree on the target, as far as their features differ, and the trunk removes that difference. The
margin is the paper's γ = exp ρ, and h is a constant. In equilibrium A's probability for h tends to
margin / (1 + margin) on both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from oncoshift.methods.alignment import Setup, Step, Term
from oncoshift.models.heads import build_head
from oncoshift.models.reversal import compute_reversal_strength, reverse_gradient

if TYPE_CHECKING:
    from oncoshift.settings.methods import MddSettings


class Mdd(Term):
    """The weighted disparity between an auxiliary head and the label head."""

    settings: MddSettings

    def __init__(self, setup: Setup, settings: MddSettings) -> None:
        super().__init__(setup, settings)
        self.head = build_head(setup.width, settings.hidden, 2)

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted disparity, and the shares of tiles on which both heads agree."""
        settings = self.settings
        strength = compute_reversal_strength(
            settings.schedule, settings.max_lambda, step.epoch, self.setup.epochs, step.progress
        )
        logits = self.head(reverse_gradient(step.z, strength))
        source, target = logits[: step.sources], logits[step.sources :]
        source_classes, target_classes = step.source_logits.argmax(1), step.target_logits.argmax(1)
        loss = settings.margin * agreement_loss(source, source_classes) + disagreement_loss(target, target_classes)
        return settings.weight * loss, {
            "disparity_loss": loss.detach(),
            "source_agreement": (source.detach().argmax(1) == source_classes).float().mean(),
            "target_agreement": (target.detach().argmax(1) == target_classes).float().mean(),
            "lambda": torch.tensor(strength),
        }


def agreement_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Compute the mean −log p of classes int64 [N] under logits [N, C].

    Raises:
        ValueError: the shapes do not fit.
    """
    _check(logits, classes)
    return F.cross_entropy(logits.float(), classes)


def disagreement_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Compute the mean −log(1 − p) of classes int64 [N] under logits [N, C].

    It is finite even where p rounds to 1.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check(logits, classes)
    scores = logits.float()
    others = scores.masked_fill(F.one_hot(classes, scores.shape[1]).bool(), -torch.inf)
    return (scores.logsumexp(1) - others.logsumexp(1)).mean()


def _check(logits: Tensor, classes: Tensor) -> None:
    if logits.ndim != 2 or classes.shape != logits.shape[:1]:
        raise ValueError(f"expected logits [N, C] and classes [N], got {list(logits.shape)}, {list(classes.shape)}")
