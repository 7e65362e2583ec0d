"""Minimum class confusion, MCC (Jin et al. 2020, arXiv 1912.03699).

It is a loss on target predictions alone, without a domain head. With target logits Z [T, C], one
step minimises CE(C(z_source), y) + weight · confusion, where

    Y = softmax(Z / temperature)                        [T, C]
    W_i = T (1 + exp(−H(Y_i))) / Σ_j (1 + exp(−H(Y_j)))  confident tiles weigh more; constant
    M = Yᵀ diag(W) Y                                    [C, C]
    N_jk = M_jk / Σ_l M_jl                              rows sum to 1: classes weigh equally
    confusion = (1 / C) Σ_j Σ_k≠j N_jk                  from 0 to about 1 − 1/C
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from oncoshift.methods.alignment import Step, Term, entropy

if TYPE_CHECKING:
    from torch import Tensor

    from oncoshift.settings.methods import MccSettings


class Mcc(Term):
    """The weighted class confusion of the target's predictions."""

    settings: MccSettings

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted class confusion; see `Term.forward`."""
        loss = class_confusion(step.target_logits, self.settings.temperature)
        return self.settings.weight * loss, {"class_confusion": loss.detach()}


def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """Compute the class confusion of logits [T, C] at a temperature > 0, a scalar.

    Raises:
        ValueError: logits are not [T, C] with at least one tile and two classes.
    """
    if logits.ndim != 2 or len(logits) == 0 or logits.shape[1] < 2:
        raise ValueError(f"expected logits [T, C] with T ≥ 1 and C ≥ 2, got {list(logits.shape)}")
    scaled = logits.float() / temperature
    y = scaled.softmax(1)
    certain = 1.0 + torch.exp(-entropy(scaled.detach()))
    weights = certain / certain.mean()
    # Sums of products, since autocast would do a matrix product in bfloat16.
    confusion = (weights[:, None, None] * y[:, :, None] * y[:, None, :]).sum(0)
    # The row of a class that no tile is predicted to be is zero and cannot be normalised.
    rows = confusion / confusion.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (rows.sum() - rows.diagonal().sum()) / logits.shape[1]
