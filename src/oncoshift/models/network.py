"""The network that methods train: a tile classifier, possibly with frozen parts; ensembles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from oncoshift.models.batch_norm import SOURCE_BUFFERS, mark_sources, replace_batch_norm
from oncoshift.models.lora import add_lora, merge_lora
from oncoshift.models.weights import load_trunk
from oncoshift.serving.classifier import EnsembleClassifier, TileClassifier, log_mean_softmax
from oncoshift.serving.trunks import PARTS, list_trunk_libraries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.settings import ModelSettings


def list_frozen_parts(freeze: str) -> tuple[str, ...]:
    """List the trunk's frozen parts, for `none`, the last frozen part of `PARTS`, or `all`."""
    if freeze == "none":
        return ()
    return PARTS if freeze == "all" else PARTS[: PARTS.index(freeze) + 1]


class AdaptationNet(nn.Module):
    """A `TileClassifier` with its frozen parts separated; methods bring further heads themselves.

    The inputs of `features` are the outputs of the frozen parts: normalised tiles [N, 3, S, S] if
    nothing is frozen, feature maps [N, C, h, w], or pooled features [N, width] if the whole trunk
    is. See `training.inputs`. With `settings.lora`, adapters alone learn in the other parts.

    Args:
        settings: section `model`; `batch_norm` is not read here, since only the method knows its
            domains.
        per_domain: whether BatchNorm in the trained parts has separate statistics for sources and
            target.

    Attributes:
        sees_tiles: whether inputs are tiles, which can be augmented.
        libraries: those beside torch whose versions decide what the trunk computes.
    """

    def __init__(self, settings: ModelSettings, *, per_domain: bool = False) -> None:
        super().__init__()
        self.classifier = TileClassifier(settings.backbone, settings.bottleneck, settings.dropout, settings.pooling)
        load_trunk(self.classifier.trunk, settings.backbone, settings.weights)
        self.width = settings.bottleneck
        self.frozen = list_frozen_parts(settings.freeze)
        self.libraries = list_trunk_libraries(settings.backbone)
        self.trained = PARTS[len(self.frozen) :]
        for part in self.frozen:
            getattr(self.classifier.trunk, part).requires_grad_(False)
        self.lora = settings.lora is not None
        if settings.lora is not None:
            add_lora(self.classifier.trunk, settings.backbone, settings.lora, self.trained)
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
        """Compile the trunk's trained parts by torch.compile; their weights keep their names."""
        for part in self.trained:
            getattr(self.classifier.trunk, part).compile()

    def features(self, x: Tensor, sources: int = 0) -> Tensor:
        """Map the output of the frozen parts to the shared feature [N, bottleneck].

        Args:
            x: [N, …], source tiles first.
            sources: number of source tiles; 0 as in serving.
        """
        if self.per_domain:
            mark_sources(self, sources)
        z: Tensor = self.classifier.bottleneck(self.classifier.trunk.run(x, self.trained))
        return z

    def logits(self, z: Tensor) -> Tensor:
        """Map the shared feature [N, bottleneck] to class logits [N, 2]."""
        logits: Tensor = self.classifier.head(z)
        return logits

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """The prefixes of the frozen tensors in the state dict."""
        parts = tuple(f"classifier.trunk.{part}." for part in self.frozen)
        if not self.lora:
            return parts
        return *parts, *(name for name, tensor in self.named_parameters() if not tensor.requires_grad)

    def served_state(self) -> dict[str, Tensor]:
        """Return the served `TileClassifier`'s state dict.

        It has target statistics in BatchNorm, and adapters are merged.
        """
        state: dict[str, Tensor] = merge_lora(self.classifier) if self.lora else self.classifier.state_dict()
        return {name: tensor for name, tensor in state.items() if not name.endswith(SOURCE_BUFFERS)}


class EnsembleNet(nn.Module):
    """Trained networks that predict the mean of their probabilities.

    Attributes:
        classifier: the members' classifiers as one.
        width: of the shared feature, the concatenation of the members'.
        frozen: the frozen parts, the same in all members.
        libraries: see `AdaptationNet`.
    """

    def __init__(self, members: Sequence[AdaptationNet]) -> None:
        super().__init__()
        self.classifier = EnsembleClassifier([member.classifier for member in members])
        self.width = sum(member.width for member in members)
        self.frozen, self.libraries = members[0].frozen, members[0].libraries
        self._members = tuple(members)

    def features(self, x: Tensor, sources: int = 0) -> Tensor:
        """Map the output of the frozen parts to the members' concatenated features [N, width]."""
        return torch.cat([member.features(x, sources) for member in self._members], dim=1)

    def logits(self, z: Tensor) -> Tensor:
        """Map the shared features [N, width] to class logits [N, 2]; see `log_mean_softmax`."""
        parts = z.chunk(len(self._members), dim=1)
        return log_mean_softmax(torch.stack([net.logits(part) for net, part in zip(self._members, parts, strict=True)]))


TrainedNet = AdaptationNet | EnsembleNet


def as_one(members: Sequence[AdaptationNet]) -> TrainedNet:
    """Return several networks as an ensemble, and a single one as it is."""
    return members[0] if len(members) == 1 else EnsembleNet(members)
