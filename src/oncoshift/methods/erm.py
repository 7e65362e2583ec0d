"""Empirical risk minimisation on the pooled source organs: the source-only control that every gain is measured from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.methods.base import Batch, Method, label_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


class Erm(Method):
    """Cross-entropy on source tiles; target tiles are never read."""

    def forward(self, batch: Batch, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Mean cross-entropy over the source batch; see `Method.forward`."""
        return label_cross_entropy(self.net.logits(self.net.features(batch.source)), batch.labels)
