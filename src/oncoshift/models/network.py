"""The network that methods train: a tile classifier, of which the first parts may be frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from torch import Tensor, nn

from oncoshift.models.weights import load_trunk
from oncoshift.serving.classifier import PARTS, TileClassifier

if TYPE_CHECKING:
    from oncoshift.settings import Model


def frozen_parts(freeze: str) -> tuple[str, ...]:
    """The trunk's parts that stay as they were loaded: `none`, up to a part of `PARTS`, or `all`."""
    if freeze == "none":
        return ()
    return PARTS if freeze == "all" else PARTS[: PARTS.index(freeze) + 1]


class AdaptationNet(nn.Module):
    """A `TileClassifier` with frozen parts apart. A method that needs another head brings it.

    Inputs of `features` are what the frozen parts put out: normalised tiles [N, 3, S, S] where nothing is frozen,
    feature maps [N, C, h, w], or pooled features [N, width] where the whole trunk is. See `training.inputs`.
    """

    def __init__(self, settings: Model) -> None:
        super().__init__()
        self.classifier = TileClassifier(settings.backbone, settings.bottleneck, settings.dropout)
        load_trunk(self.classifier.trunk, settings.backbone, settings.weights)
        self.width = settings.bottleneck
        self.frozen = frozen_parts(settings.freeze)
        self.trained = PARTS[len(self.frozen) :]
        for part in self.frozen:
            getattr(self.classifier.trunk, part).requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Switch mode; frozen parts keep their BatchNorm statistics and stay in eval mode."""
        super().train(mode)
        for part in self.frozen:
            getattr(self.classifier.trunk, part).eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        """Output of the frozen parts → shared feature [N, bottleneck]."""
        z: Tensor = self.classifier.bottleneck(self.classifier.trunk.run(x, self.trained))
        return z

    def logits(self, z: Tensor) -> Tensor:
        """Shared feature [N, bottleneck] → class logits [N, 2]."""
        logits: Tensor = self.classifier.head(z)
        return logits
