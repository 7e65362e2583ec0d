"""Empirical risk minimisation on all source organs pooled: the control for measuring gains.

`single` is the same on one source organ, and `ensemble` the mean probability of one `single` per
source organ: the supervised models and their ensembles of arXiv 2601.14678 (`methods.factory`,
`training.ensemble`). One step minimises CE(C(z_source), y).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.methods.base import Batch, Method, label_cross_entropy
from oncoshift.models.collective import gather

if TYPE_CHECKING:
    from torch import Tensor


class Erm(Method):
    """Cross-entropy on source tiles; target tiles are never read."""

    def forward(self, batch: Batch, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Compute the mean cross-entropy over the source batch; see `Method.forward`."""
        z = gather(self.net.features(batch.source, sources=len(batch.source)))
        return label_cross_entropy(self.net.logits(z), gather(batch.labels), self.label_smoothing)
