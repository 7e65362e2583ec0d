"""The network of a served model in PyTorch: for export, explanations, and models of old versions.

Needs torch, torchvision and safetensors, which a served model does not install.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from oncoshift.serving.attributions import explain_tile
from oncoshift.serving.classifier import TileClassifier, build_classifier, log_mean_softmax, normalise
from oncoshift.serving.network import NetworkOutput

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.serving.classifier import Classifier
    from oncoshift.serving.config import ServedConfig


class ServedModule(nn.Module):
    """A classifier from RGB tiles, uint8 [N, S, S, 3], to logits [N, 2] and features [N, D].

    The features are the trunk's pooled ones; those of an ensemble's members are side by side.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.members = nn.ModuleList([classifier] if isinstance(classifier, TileClassifier) else classifier.members)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Run all members."""
        x = normalise(tiles)
        members = cast("list[TileClassifier]", list(self.members))
        pooled = [member.trunk(x) for member in members]
        logits = [member.head(member.bottleneck(each)) for member, each in zip(members, pooled, strict=True)]
        return logits[0] if len(logits) == 1 else log_mean_softmax(torch.stack(logits)), torch.cat(pooled, dim=1)


class EagerNetwork:
    """A classifier as a `Network`, in float32; safe to call from several threads."""

    def __init__(self, classifier: Classifier, device: str | None = None) -> None:
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.classifier = classifier.eval().to(self._device)
        self.module = ServedModule(classifier).eval()

    @classmethod
    def load(cls, config: ServedConfig, weights: Path, device: str | None = None) -> EagerNetwork:
        """Load weights.safetensors; every weight must be there, and no other."""
        classifier = build_classifier(
            config.backbone, config.bottleneck, config.dropout, config.members, config.pooling
        )
        classifier.load_state_dict(load_file(weights))
        return cls(classifier, device)

    def __call__(self, tiles: NDArray[np.uint8]) -> NetworkOutput:
        """See `Network`."""
        with torch.inference_mode():
            logits, features = self.module(torch.from_numpy(tiles).to(self._device))
        return NetworkOutput(logits.float().cpu().numpy(), features.float().cpu().numpy())

    def explain(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Attribute the margin, malignant minus benign logit, to the pixels of a tile.

        Args:
            tile: RGB uint8 [S, S, 3].

        Returns:
            float32 [S, S]; positive points towards malignant. See `explain_tile`.
        """
        attribution: NDArray[np.float32] = explain_tile(self.classifier, tile).values[0]
        return attribution
