"""The network that methods train: a tile classifier, of which the first parts may be frozen; and several as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from oncoshift.models.batch_norm import SOURCE_BUFFERS, mark_sources, replace_batch_norm
from oncoshift.models.weights import load_trunk
from oncoshift.serving.classifier import EnsembleClassifier, TileClassifier, log_mean_softmax
from oncoshift.serving.trunks import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.settings import ModelSettings


def list_frozen_parts(freeze: str) -> tuple[str, ...]:
    """The trunk's parts that stay as they were loaded: `none`, up to a part of `PARTS`, or `all`."""
    if freeze == "none":
        return ()
    return PARTS if freeze == "all" else PARTS[: PARTS.index(freeze) + 1]


class AdaptationNet(nn.Module):
    """A `TileClassifier` with frozen parts apart. A method that needs another head brings it.

    Inputs of `features` are what the frozen parts put out: normalised tiles [N, 3, S, S] where nothing is frozen,
    feature maps [N, C, h, w], or pooled features [N, width] where the whole trunk is. See `training.inputs`.

    Args:
        settings: section `model`; `batch_norm` is not read here, since it is the method that knows its domains.
        per_domain: whether BatchNorm in the trained parts keeps statistics of sources and target apart.

    Attributes:
        sees_tiles: whether inputs are tiles, so that a tile can have several views.
    """

    def __init__(self, settings: ModelSettings, *, per_domain: bool = False) -> None:
        super().__init__()
        self.classifier = TileClassifier(settings.backbone, settings.bottleneck, settings.dropout)
        load_trunk(self.classifier.trunk, settings.backbone, settings.weights)
        self.width = settings.bottleneck
        self.frozen = list_frozen_parts(settings.freeze)
        self.trained = PARTS[len(self.frozen) :]
        for part in self.frozen:
            getattr(self.classifier.trunk, part).requires_grad_(False)
        self.sees_tiles = not self.frozen
        self.per_domain = per_domain
        if per_domain:
            for part in self.trained:
                replace_batch_norm(getattr(self.classifier.trunk, part), per_domain=True)

    def train(self, mode: bool = True) -> Self:
        """Switch mode; frozen parts keep their BatchNorm statistics and stay in eval mode."""
        super().train(mode)
        for part in self.frozen:
            getattr(self.classifier.trunk, part).eval()
        return self

    def compile_trained_parts(self) -> None:
        """Let torch.compile make the trained parts of the trunk faster, in place; their weights keep their names."""
        for part in self.trained:
            getattr(self.classifier.trunk, part).compile()

    def features(self, x: Tensor, sources: int = 0) -> Tensor:
        """Output of the frozen parts → shared feature [N, bottleneck].

        Args:
            x: [N, …], source tiles first.
            sources: how many of them are source tiles; what is served sees the target alone.
        """
        if self.per_domain:
            mark_sources(self, sources)
        z: Tensor = self.classifier.bottleneck(self.classifier.trunk.run(x, self.trained))
        return z

    def logits(self, z: Tensor) -> Tensor:
        """Shared feature [N, bottleneck] → class logits [N, 2]."""
        logits: Tensor = self.classifier.head(z)
        return logits

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """How the names of the frozen parts' tensors begin in the state dict."""
        return tuple(f"classifier.trunk.{part}." for part in self.frozen)

    def served_state(self) -> dict[str, Tensor]:
        """State dict of the `TileClassifier` to serve: one whose BatchNorm has the target's statistics."""
        state: dict[str, Tensor] = self.classifier.state_dict()
        return {name: tensor for name, tensor in state.items() if not name.endswith(SOURCE_BUFFERS)}


class EnsembleNet(nn.Module):
    """Trained networks in the place of one, for predictions: the mean of their probabilities counts.

    Attributes:
        classifier: the members' classifiers as one.
        width: of the shared feature, which is the members' side by side.
        frozen: the frozen parts, the same in all members.
    """

    def __init__(self, members: Sequence[AdaptationNet]) -> None:
        super().__init__()
        self.classifier = EnsembleClassifier([member.classifier for member in members])
        self.width = sum(member.width for member in members)
        self.frozen = members[0].frozen
        self._members = tuple(members)

    def features(self, x: Tensor, sources: int = 0) -> Tensor:
        """Output of the frozen parts → the members' shared features, [N, width]."""
        return torch.cat([member.features(x, sources) for member in self._members], dim=1)

    def logits(self, z: Tensor) -> Tensor:
        """Shared features [N, width] → class logits [N, 2]; see `log_mean_softmax`."""
        parts = z.chunk(len(self._members), dim=1)
        return log_mean_softmax(torch.stack([net.logits(part) for net, part in zip(self._members, parts, strict=True)]))


TrainedNet = AdaptationNet | EnsembleNet


def as_one(members: Sequence[AdaptationNet]) -> TrainedNet:
    """Several networks as an ensemble; one alone stays what it is."""
    return members[0] if len(members) == 1 else EnsembleNet(members)
