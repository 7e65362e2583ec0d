"""The tile classifier (trunk, bottleneck, label head), and ensembles of it.

Needs torch and torchvision, timm for its trunks, and imports nothing of oncoshift outside this
package.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torchvision import models

from oncoshift.serving.trunks import IMAGENET_MEAN, IMAGENET_STD, PARTS, TRUNKS, check_pooling, map_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.serving.timm_trunk import Pooling, TimmTrunk


class Trunk(nn.Module):
    """A torchvision ResNet without its last layer, as a sequence of the parts in `PARTS`.

    Shapes:
        uint8 tiles normalised to float [N, 3, S, S] → pooled features [N, width], width 512
        (ResNet18) or 2048.

    Attributes:
        width: of the pooled features.
        side: of the tiles that it takes, in pixels; None: any.
        own_names: torchvision's name of each tensor → its name here.
    """

    side: int | None = None

    def __init__(self, backbone: str) -> None:
        super().__init__()
        resnet = models.get_model(backbone, weights=None)
        self.width: int = resnet.fc.in_features
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        self.own_names = map_names(resnet.state_dict(keep_vars=True), self.state_dict(keep_vars=True))

    def run(self, x: Tensor, parts: Sequence[str]) -> Tensor:
        """Run some consecutive parts; after `layer4` the map is pooled to [N, width]."""
        for part in parts:
            x = getattr(self, part)(x)
            if part == "layer4":
                x = x.mean(dim=(2, 3))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Run all parts."""
        return self.run(x, PARTS)


def build_trunk(backbone: str, pooling: Pooling = "auto") -> Trunk | TimmTrunk:
    """Build a trunk with random weights.

    Args:
        backbone: one of `TRUNKS`, or as `TimmTrunk` takes it.
        pooling: see `TimmTrunk`.

    Raises:
        ImportError: timm is needed and not installed.
        ValueError: there is no such trunk, or it cannot be pooled so.
    """
    if backbone in TRUNKS:
        check_pooling(backbone, pooling)
        return Trunk(backbone)
    from oncoshift.serving.timm_trunk import TimmTrunk  # timm takes seconds to import, and may be absent

    return TimmTrunk(backbone, pooling)


class TileClassifier(nn.Module):
    """Trunk → Linear(width, bottleneck) → ReLU → Dropout → Linear(bottleneck, 2).

    Bottleneck and head are separate because adaptation methods align the feature between them.
    """

    def __init__(self, backbone: str, bottleneck: int, dropout: float, pooling: Pooling = "auto") -> None:
        super().__init__()
        self.trunk = build_trunk(backbone, pooling)
        self.bottleneck = nn.Sequential(nn.Linear(self.trunk.width, bottleneck), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(bottleneck, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised tiles [N, 3, S, S] to logits [N, 2] (benign, malignant)."""
        logits: Tensor = self.head(self.bottleneck(self.trunk(x)))
        return logits


class EnsembleClassifier(nn.Module):
    """Classifiers of one architecture that predict the mean of their probabilities.

    `trunk` is the first member's. Frozen parts are equal in all members, so their outputs can be
    computed with it.
    """

    def __init__(self, members: Sequence[TileClassifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def trunk(self) -> Trunk | TimmTrunk:
        """The first member's trunk."""
        return cast("TileClassifier", self.members[0]).trunk

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised tiles [N, 3, S, S] to logits [N, 2]; see `log_mean_softmax`."""
        return log_mean_softmax(torch.stack([member(x) for member in self.members]))


Classifier = TileClassifier | EnsembleClassifier


def build_classifier(
    backbone: str, bottleneck: int, dropout: float, members: int = 1, pooling: Pooling = "auto"
) -> Classifier:
    """Build a classifier with random weights, an `EnsembleClassifier` for several members."""
    made = [TileClassifier(backbone, bottleneck, dropout, pooling) for _ in range(members)]
    return made[0] if members == 1 else EnsembleClassifier(made)


def log_mean_softmax(logits: Tensor) -> Tensor:
    """Return logits [N, C] whose softmax is the mean probability of logits [K, N, C].

    That is ln((1 / K) Σ_k softmax(logits_k)).
    """
    return logits.float().log_softmax(2).logsumexp(0) - math.log(len(logits))


def normalise(tiles: Tensor) -> Tensor:
    """Map uint8 tiles [N, S, S, 3] to float32 [N, 3, S, S], normalised by ImageNet's statistics."""
    x = tiles.permute(0, 3, 1, 2).to(torch.float32) / 255.0
    return (x - _to_channels(IMAGENET_MEAN, x.device)) / _to_channels(IMAGENET_STD, x.device)


def _to_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Put a value for each channel on a device, [1, C, 1, 1]; nobody waits for a GPU."""
    if device.type == "cuda":
        made = torch.tensor(values).pin_memory().to(device, non_blocking=True)
    else:
        made = torch.tensor(values, device=device)
    return made.view(1, -1, 1, 1)
