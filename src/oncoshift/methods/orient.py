"""Orientation: target predictions must follow the anchor, at least weakly.

Alignment can exchange the names of the target's classes. With the probabilities of malignant p of a
batch's target tiles [T] and their anchor a [T] (`oncoshift.anchors`), one step adds

    weight · max(0, margin − corr(p, a)),

where corr is Pearson's. Beyond the margin the anchor has no say, as it is only roughly right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from oncoshift.methods.alignment import Step, Term
from oncoshift.methods.base import Needs

if TYPE_CHECKING:
    from torch import Tensor

    from oncoshift.settings.methods import OrientSettings

_TINY = 1e-6


class Orient(Term):
    """The weighted lack of correlation of the target's predictions with the anchor."""

    needs = Needs(target=True, anchor=True)
    settings: OrientSettings

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted penalty, and log the correlation; see `Term.forward`."""
        if step.target_anchor is None:
            raise ValueError("orient needs the anchor of target tiles")
        correlation = correlate(step.target_logits.float().softmax(1)[:, 1], step.target_anchor)
        loss = self.settings.weight * F.relu(self.settings.margin - correlation)
        return loss, {"anchor_correlation": correlation.detach()}


def correlate(p: Tensor, anchor: Tensor) -> Tensor:
    """Compute Pearson's correlation of two vectors [T], a scalar; about 0 where one is constant.

    Raises:
        ValueError: the shapes differ.
    """
    if p.ndim != 1 or p.shape != anchor.shape:
        raise ValueError(f"expected two vectors [T], got {list(p.shape)} and {list(anchor.shape)}")
    p, anchor = p - p.mean(), anchor - anchor.mean()
    correlation: Tensor = (p * anchor).sum() / (p.norm() * anchor.norm()).clamp(min=_TINY)
    return correlation
