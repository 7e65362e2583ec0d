"""The network that methods train: a tile classifier, possibly with frozen parts; ensembles."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from oncoshift.models.batch_norm import SOURCE_BUFFERS, mark_sources, replace_batch_norm
from oncoshift.models.lora import add_lora, merge_lora
from oncoshift.models.weights import load_trunk
from oncoshift.serving.classifier import EnsembleClassifier, TileClassifier, log_mean_softmax
from oncoshift.serving.trunks import PARTS, list_trunk_libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oncoshift.serving.classifier import Trunk
    from oncoshift.serving.timm_trunk import TimmTrunk
    from oncoshift.settings import ModelSettings

    Run = Callable[[Trunk | TimmTrunk, Tensor, Sequence[str]], Tensor]

_MOST_GRAPHS = 64
"""Most graphs that a process keeps: one for each kind of trunk and shape of its batches."""


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
        compiles: whether steps of training run the trained parts as one compiled graph.
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
        self.compiles = False
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
        """Have torch compile the trunk's trained parts for steps of training, which have one shape.

        All else runs the same modules uncompiled: validation has other shapes and modes, each of
        which would take another graph.
        """
        self.compiles = bool(self.trained)

    def features(self, x: Tensor, sources: int = 0) -> Tensor:
        """Map the output of the frozen parts to the shared feature [N, bottleneck].

        Args:
            x: [N, …], source tiles first.
            sources: number of source tiles; 0 as in serving.
        """
        if self.per_domain:
            mark_sources(self, sources)
        run = _compile_run() if self.compiles and self.training and torch.is_grad_enabled() else _run
        z: Tensor = self.classifier.bottleneck(run(self.classifier.trunk, x, self.trained))
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


def _run(trunk: Trunk | TimmTrunk, x: Tensor, parts: Sequence[str]) -> Tensor:
    """Run consecutive parts of a trunk."""
    return trunk.run(x, parts)


@cache
def _compile_run() -> Run:
    """Compile `_run`: all parts in one graph for each shape.

    Parts that are compiled one by one share their code with one another, so torch takes them for
    calls of one function with tensors of many shapes, and makes graphs for any shape, which are
    slower.
    """
    import torch._dynamo  # takes a second

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
    return torch.compile(_run, dynamic=False)


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
