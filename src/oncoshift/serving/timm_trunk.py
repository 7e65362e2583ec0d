"""Trunks that timm builds: vision transformers, ConvNeXt and ResNets, all in the parts of a ResNet.

A vision transformer is cut into its embedding, `stem`, and its blocks in four runs of equal length;
a ConvNeXt has a stem and four stages. So what can be frozen has the same names for every trunk.
Needs torch and timm, and imports nothing of oncoshift outside this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import timm
import torch
from timm.models import ConvNeXt, ResNet, VisionTransformer
from torch import Tensor, nn

from oncoshift.serving.trunks import (
    HUB,
    HUB_ARGUMENTS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PARTS,
    TIMM,
    check_pooling,
    map_names,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Pooling = Literal["auto", "cls", "mean", "both"]
TimmModel: TypeAlias = ConvNeXt | ResNet | VisionTransformer

_OWN_POOLING = {"token": "cls", "avg": "mean"}
"""The pooling of a trunk by timm's name."""


class TimmTrunk(nn.Module):
    """A trunk without its last layer, as a sequence of the parts in `PARTS`.

    Shapes:
        uint8 tiles normalised to float [N, 3, S, S] → pooled features [N, width].

    Args:
        backbone: `timm/<name>`, or `hf-hub:<owner>/<name>@<revision>`, whose configuration
            huggingface_hub downloads or finds in its cache.
        pooling: of the tokens of a vision transformer: the class token, the mean of the patches,
            both side by side, or as the trunk does it.

    Attributes:
        width: of the pooled features.
        side: of the tiles that it takes, in pixels; None: any.
        own_names: timm's name of each tensor → its name here.

    Raises:
        ValueError: timm has no such trunk, it is of another kind, or it cannot be pooled so.
    """

    def __init__(self, backbone: str, pooling: Pooling = "auto") -> None:
        super().__init__()
        model = build_timm_model(backbone)
        named = model.state_dict(keep_vars=True)
        config = model.pretrained_cfg
        # Another size would need other positions, whose interpolation ONNX does not know.
        self.side = int(model.patch_embed.img_size[0]) if isinstance(model, VisionTransformer) else None
        rest, self.width = _split(model, pooling)
        self.stem = _Stem(model, config["mean"], config["std"])
        self.layer1, self.layer2, self.layer3, self.layer4 = rest
        self.own_names = map_names(named, self.state_dict(keep_vars=True))

    def run(self, x: Tensor, parts: Sequence[str]) -> Tensor:
        """Run some consecutive parts; after `layer4` the features are pooled to [N, width]."""
        for part in parts:
            x = getattr(self, part)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Run all parts."""
        return self.run(x, PARTS)


def build_timm_model(backbone: str) -> TimmModel:
    """Build a network with random weights and without its last layer.

    Raises:
        ValueError: timm has no such network, or it is of another kind.
    """
    name = backbone.removeprefix(TIMM)
    repository = backbone.removeprefix(HUB).partition("@")[0].lower()
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, **_resolve(HUB_ARGUMENTS.get(repository, {})))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{backbone}: timm {timm.__version__} cannot build it: {error}") from error
    if not isinstance(model, TimmModel):
        raise ValueError(
            f"{backbone}: timm builds a {type(model).__name__} of it, whose parts are not known here; choose a vision "
            "transformer, a ConvNeXt or a ResNet"
        )
    return model


class _Stem(nn.Module):
    """The first part: tiles normalised by ImageNet's statistics, to tokens or maps.

    Args:
        model: the network without what comes after its stem.
        mean: by which the network expects tiles to be normalised, for values of 0 to 1.
        std: the same.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: TimmModel, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        ours, theirs = (torch.tensor([IMAGENET_MEAN, IMAGENET_STD]), torch.tensor([tuple(mean), tuple(std)]))
        self.register_buffer("scale", (ours[1] / theirs[1]).view(3, 1, 1))
        self.register_buffer("shift", ((ours[0] - theirs[0]) / theirs[1]).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(x * self.scale + self.shift)
        return features


class _TokenPooling(nn.Module):
    """Tokens [N, T, D] to features [N, D], or [N, 2 D] of class token and mean of patches."""

    def __init__(self, pooling: str, prefix: int, norm: nn.Module) -> None:
        super().__init__()
        self.pooling, self.prefix, self.norm = pooling, prefix, norm

    def extra_repr(self) -> str:
        """Describe what is in no tensor."""
        return f"{self.pooling}, prefix={self.prefix}"

    def forward(self, tokens: Tensor) -> Tensor:
        pooled = []
        if self.pooling in ("cls", "both"):
            pooled.append(self.norm(tokens[:, 0]))
        if self.pooling in ("mean", "both"):
            pooled.append(self.norm(tokens[:, self.prefix :].mean(dim=1)))
        return torch.cat(pooled, dim=1)


def _split(model: TimmModel, pooling: Pooling) -> tuple[Sequence[nn.Module], int]:
    """Take all but the stem from a network; return the parts after the stem, and the width."""
    if isinstance(model, VisionTransformer):
        return _split_transformer(model, pooling)
    check_pooling("it", pooling)
    return _split_convnext(model) if isinstance(model, ConvNeXt) else _split_resnet(model)


def _split_transformer(model: VisionTransformer, pooling: Pooling) -> tuple[Sequence[nn.Module], int]:
    """Take blocks and norms from a transformer; return the parts after the stem, and the width."""
    chosen = _OWN_POOLING.get(model.global_pool, "") if pooling == "auto" else pooling
    if not chosen:
        raise ValueError(f"it pools by {model.global_pool!r}; set model.pooling to cls, mean or both")
    if chosen != "mean" and not model.has_class_token:
        raise ValueError(f"it has no class token, and model.pooling {chosen} needs one; set it to mean")
    blocks, count = list(model.blocks), len(model.blocks)
    parts = [nn.Sequential(*blocks[count * k // 4 : count * (k + 1) // 4]) for k in range(4)]
    parts[3].extend([model.norm, _TokenPooling(chosen, model.num_prefix_tokens, model.fc_norm)])
    model.blocks, model.norm, model.fc_norm, model.attn_pool = nn.Sequential(), nn.Identity(), nn.Identity(), None
    return parts, model.embed_dim * (2 if chosen == "both" else 1)


def _split_convnext(model: ConvNeXt) -> tuple[Sequence[nn.Module], int]:
    """Take stages and head from a ConvNeXt; return the parts after the stem, and the width."""
    first, second, third, fourth = model.stages
    last = nn.Sequential(fourth, model.norm_pre, model.head)
    model.stages, model.norm_pre, model.head = nn.Sequential(), nn.Identity(), nn.Identity()
    return [first, second, third, last], model.num_features


def _split_resnet(model: ResNet) -> tuple[Sequence[nn.Module], int]:
    """Take layers and pooling from a ResNet; return the parts after the stem, and the width."""
    own = model.global_pool.pool_type
    if not own or model.global_pool.feat_mult() != 1:
        raise ValueError(f"it pools by {own!r}, which does not give one feature a channel; choose another trunk")
    parts = [model.layer1, model.layer2, model.layer3, nn.Sequential(model.layer4, model.global_pool)]
    model.layer1, model.layer2, model.layer3, model.layer4 = (nn.Sequential() for _ in range(4))
    model.global_pool = nn.Identity()
    return parts, model.num_features


def _resolve(arguments: dict[str, Any]) -> dict[str, Any]:
    """Replace names of layers by the classes that timm takes."""
    layers: dict[str, Any] = {"SwiGLUPacked": timm.layers.SwiGLUPacked, "SiLU": nn.SiLU}
    return {name: layers.get(value, value) if isinstance(value, str) else value for name, value in arguments.items()}
