"""The interface of methods: modules that turn a batch and the training's progress into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oncoshift.models.network import AdaptationNet
    from oncoshift.settings import Section


class Batch(NamedTuple):
    """The tiles of one step; those of the target have no labels, here or anywhere before.

    Attributes:
        source: network input [B, …] of source tiles.
        labels: int64 [B], of the source tiles.
        organs: int64 [B], of the source tiles, index into the settings' `sources`.
        target: network input [T, …] of target tiles; None for a method that does not use them.
        target_strong: strong views of the same target tiles [T, …], or None; see `Needs`.
        target_anchor: float32 [T], the anchor of the target tiles, or None; see `Needs`.
    """

    source: Tensor
    labels: Tensor
    organs: Tensor
    target: Tensor | None
    target_strong: Tensor | None = None
    target_anchor: Tensor | None = None


class Needs(NamedTuple):
    """The requirements of a method on batches, beside labelled source tiles.

    Attributes:
        target: whether target tiles are needed.
        strong: whether a strong view of each target tile is needed, with `strong_jitter`.
        stain_jitter: least stain jitter of the views of source and target tiles; see
            `train.stain_jitter`.
        strong_jitter: stain jitter of strong views.
        anchor: whether the anchor of each target tile is needed.
    """

    target: bool = False
    strong: bool = False
    stain_jitter: float = 0.0
    strong_jitter: float = 0.0
    anchor: bool = False


class Method(nn.Module, ABC):
    """An adaptation method around a network, with a row in `oncoshift.methods.registry`.

    Args:
        net: the network.
        settings: the section of the method's own name, if there is one.

    Attributes:
        needs: what it requires of batches.
        calibrates: whether `calibrate` does anything.
        label_smoothing: share of each label that the label loss spreads evenly over the classes.
    """

    needs: Needs = Needs()
    calibrates: bool = False
    label_smoothing: float = 0.0

    def __init__(self, net: AdaptationNet, settings: Section | None = None) -> None:
        super().__init__()
        self.net = net
        self.settings = settings

    @abstractmethod
    def forward(self, batch: Batch, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of one step.

        Args:
            batch: the step's tiles.
            epoch: number of the epoch, from 0.
            progress: share of all steps done, from 0 to 1.

        Returns:
            The scalar loss to minimise, and detached scalars to log, by name.
        """

    def calibrate(self, net: AdaptationNet, target: Iterable[Tensor]) -> None:
        """Update a network's statistics after an epoch, before it is validated.

        Args:
            net: the method's network, or the copy with averaged weights.
            target: one pass over the target tiles, in batches of network input [N, …].
        """


def label_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the cross-entropy of class logits [B, C] and smoothed labels, and figures to log.

    The loss of a tile with label y is −Σ_c t_c log softmax(logits)_c with t_c = (1 − s) [c = y] + s
    / C (Szegedy et al. 2016, arXiv 1512.00567).

    Args:
        logits: [B, C].
        labels: int64 [B].
        smoothing: s, from 0 up to 1.
    """
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    accuracy = (logits.detach().argmax(1) == labels).float().mean()
    return loss, {"label_loss": loss.detach(), "source_train_accuracy": accuracy}
