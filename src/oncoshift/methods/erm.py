"""Empirical risk minimisation on the pooled source organs: the source-only control that every gain is measured from."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch.nn import functional as F

from oncoshift.methods.base import Batch, Method

if TYPE_CHECKING:
    from torch import Tensor


class Erm(Method):
    """Cross-entropy on source tiles; target tiles are never read."""

    name: ClassVar[str] = "erm"
    uses_target: ClassVar[bool] = False

    def forward(self, batch: Batch, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Mean cross-entropy over the source batch; see `Method.forward`."""
        logits = self.net.logits(self.net.features(batch.source))
        loss = F.cross_entropy(logits, batch.labels)
        accuracy = (logits.detach().argmax(1) == batch.labels).float().mean()
        return loss, {"label_loss": loss.detach(), "source_train_accuracy": accuracy}
