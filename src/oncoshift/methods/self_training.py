"""Self-training on weak and strong views, after FixMatch (Sohn et al. 2020, arXiv 2001.07685).

With q the class probabilities of source tiles [B, C], p those of the weak views of target tiles [T,
C], both constants, and Z the logits of the strong views [T, C], one step minimises CE(C(z_source),
y) + weight · μ · consistency, where

    p̃_i ∝ p_i · mean(q) / mean(p)                       target proportions → sources' (`align`)
    c = threshold · mean_j max q_j                       relative to the sources' mean confidence
    ŷ_i = argmax p̃_i,  m_i = [max p̃_i ≥ c]               pseudo-labels, and which of them are used
    consistency = (1 / T) Σ_i m_i · CE(Z_i, ŷ_i)
    μ = ½ − ½ cos(min(π, 2π · progress))                 from 0 to 1 over the first half of training

The alignment, the relative threshold and μ are those of AdaMatch (Berthelot et al. 2022, arXiv
2106.04732); its random interpolation of logits is left out, and pseudo-labels are hard, as in
FixMatch. Alignment is wrong where the target's class proportions differ from those of source
batches.

Views of tiles are those of `training.augment`, the strong one with stains of another strength. On
the outputs of a frozen trunk both views are the same tile, and the strong one lacks half of the
channels (`alignment.drop_channels`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from oncoshift.methods.alignment import Setup, Step, Term
from oncoshift.methods.base import Needs

if TYPE_CHECKING:
    from oncoshift.settings.methods import SelfTrainingSettings


class SelfTraining(Term):
    """The weighted consistency of weak and strong views."""

    settings: SelfTrainingSettings

    def __init__(self, setup: Setup, settings: SelfTrainingSettings) -> None:
        super().__init__(setup, settings)
        self.needs = Needs(target=True, strong=True, strong_jitter=settings.stain_jitter)

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted consistency loss; see `Term.forward`.

        Logged beside the loss: `pseudo_label_share`, the share of target tiles with a pseudo-label;
        `pseudo_malignant_share`, the malignant share of those, 0 without any; `view_agreement`, the
        share of target tiles with the same class in both views.
        """
        if step.strong_logits is None:
            raise ValueError("self_training needs logits of strong views")
        settings, weak = self.settings, step.target_logits
        classes, counts = assign_pseudo_labels(step.source_logits, weak, settings.threshold, settings.align)
        loss = consistency_loss(step.strong_logits, classes, counts)
        figures = {
            "consistency_loss": loss.detach(),
            "pseudo_label_share": counts.mean(),
            "pseudo_malignant_share": (counts * classes).sum() / counts.sum().clamp(min=1),
            "view_agreement": (step.strong_logits.argmax(1) == weak.argmax(1)).float().mean(),
        }
        return settings.weight * ramp_up(step.progress) * loss, figures


@torch.no_grad()
def assign_pseudo_labels(
    source_logits: Tensor, weak_logits: Tensor, threshold: float, align: bool
) -> tuple[Tensor, Tensor]:
    """Assign pseudo-labels to target tiles, and decide which of them are used.

    Args:
        source_logits: [B, C].
        weak_logits: [T, C], of the weak views.
        threshold: share of the sources' mean confidence.
        align: whether to bring the target's proportions to the sources'.

    Returns:
        Classes int64 [T], and float32 [T], 1 where the class is used and 0 elsewhere.

    Raises:
        ValueError: the shapes do not fit.
    """
    if source_logits.ndim != 2 or weak_logits.ndim != 2 or source_logits.shape[1] != weak_logits.shape[1]:
        shapes = [list(logits.shape) for logits in (source_logits, weak_logits)]
        raise ValueError(f"expected source logits [B, C] and weak logits [T, C], got {shapes}")
    source, target = source_logits.float().softmax(1), weak_logits.float().softmax(1)
    if align:
        target = target * (source.mean(0) / target.mean(0).clamp(min=1e-6))
        target = target / target.sum(1, keepdim=True)
    confidence, classes = target.max(1)
    return classes, (confidence >= threshold * source.max(1).values.mean()).float()


def consistency_loss(strong_logits: Tensor, classes: Tensor, counts: Tensor) -> Tensor:
    """Compute the cross-entropy of logits [T, C] and classes int64 [T], weighted by `counts` [T].

    The sum is divided by T.

    Raises:
        ValueError: the shapes do not fit.
    """
    if strong_logits.ndim != 2 or classes.shape != strong_logits.shape[:1] or counts.shape != classes.shape:
        shapes = [list(values.shape) for values in (strong_logits, classes, counts)]
        raise ValueError(f"expected logits [T, C], classes [T] and counts [T], got {shapes}")
    return (F.cross_entropy(strong_logits.float(), classes, reduction="none") * counts).mean()


def ramp_up(progress: float) -> float:
    """Compute the weight μ at a share of all steps done: 0 at the start, 1 from one half on."""
    return 0.5 - 0.5 * math.cos(min(math.pi, 2.0 * math.pi * progress))
