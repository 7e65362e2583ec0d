"""Names of the trunks and of their parts, and what tiles are normalised by."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

TRUNKS = ("resnet18", "resnet50")
"""ResNets by torchvision's names; to add another of torchvision's ResNets, add its name."""

TIMM, HUB = "timm/", "hf-hub:"
"""Prefixes of trunks that timm builds: by timm's name, or as a repository says."""

PARTS = ("stem", "layer1", "layer2", "layer3", "layer4")
"""Parts of each trunk, in order; the parts from the stem up to one of them can be frozen."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""By which all tiles are normalised; a trunk with other statistics converts them itself."""

_OF_TIMM = re.compile(r"timm/[\w.]+|hf-hub:[\w.-]+/[\w.-]+@[0-9a-f]{40}")

HUB_ARGUMENTS: dict[str, dict[str, Any]] = {
    "mahmoodlab/uni": {"init_values": 1e-5},
    "mahmoodlab/uni2-h": {
        "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5, "embed_dim": 1536,
        "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "mlp_layer": "SwiGLUPacked", "act_layer": "SiLU",
        "reg_tokens": 8,
    },
    "bioptimus/h-optimus-0": {"init_values": 1e-5},
    "paige-ai/virchow": {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"},
    "paige-ai/virchow2": {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"},
}  # fmt: skip
"""Arguments that the page of a repository, in lower case, asks for beside its configuration."""


def map_names(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, str]:
    """Map the names that tensors had before to those that they have now, for those still there."""
    names = {id(tensor): name for name, tensor in now.items()}
    return {name: names[id(tensor)] for name, tensor in before.items() if id(tensor) in names}


def check_pooling(backbone: str, pooling: str) -> None:
    """Check that a trunk without a class token is not pooled by one.

    Raises:
        ValueError: it is.
    """
    if pooling not in ("auto", "mean"):
        raise ValueError(f"{backbone} has no class token, and model.pooling {pooling} needs one; set it to auto")


def list_trunk_libraries(backbone: str) -> tuple[str, ...]:
    """List the libraries beside torch whose versions decide what a trunk computes."""
    return () if backbone in TRUNKS else ("timm",)


def is_trunk(backbone: str) -> bool:
    """Tell whether a name can be a trunk's: a ResNet, `timm/<name>`, or a pinned repository."""
    return backbone in TRUNKS or _OF_TIMM.fullmatch(backbone) is not None
