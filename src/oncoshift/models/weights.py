"""Pretrained weights of the trunk: none, published ones, or a .safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torchvision import models as torchvision_models

from oncoshift.errors import WeightsError
from oncoshift.serving.trunks import HUB, TRUNKS

if TYPE_CHECKING:
    from torch import Tensor

    from oncoshift.serving.classifier import Trunk
    from oncoshift.serving.timm_trunk import TimmTrunk

_ALTERNATIVES = (
    "give the path of a .safetensors state dict (--set model.weights=…/resnet50.safetensors), or train from a random "
    "start (--set model.weights=none)"
)

_LAST_LAYERS = ("fc.", "head.", "classifier.")
"""Prefixes of the layer that a trunk does without."""

ACCESS = (
    "accept its licence on its page if it has one, and set HF_TOKEN to a token of your account, or download it on a "
    "machine with a network and copy its folder below HF_HOME/hub"
)


def load_trunk(trunk: Trunk | TimmTrunk, backbone: str, weights: str) -> None:
    """Load pretrained weights into a trunk, in place; `none` leaves it as it is.

    Args:
        trunk: the trunk to fill.
        backbone: its name, as `model.backbone` has it.
        weights: none, imagenet, pretrained, or the path of a .safetensors file with the names of
            torchvision or timm and any float type.

    Raises:
        WeightsError: the weights are unavailable, or are those of another network.
    """
    if weights == "none":
        return
    fetch = {"imagenet": _fetch_imagenet_state, "pretrained": _fetch_hub_state}.get(weights)
    state = _read_state(Path(weights), backbone) if fetch is None else fetch(backbone)
    own, expected = trunk.own_names, trunk.state_dict()
    renamed = {own[name]: tensor.float() for name, tensor in state.items() if name in own}
    misfits = [
        theirs
        for theirs, name in own.items()
        if not name.endswith("num_batches_tracked")
        and (name not in renamed or renamed[name].shape != expected[name].shape)
    ]
    unknown = [name for name in state if name not in own and not name.startswith(_LAST_LAYERS)]
    if misfits or unknown:
        raise WeightsError(
            f"model.weights {weights}: not the weights of a {backbone}: {len(misfits)} of {len(own)} tensors are "
            f"missing or of another shape, and {len(unknown)} are unknown, first {(misfits + unknown)[0]}; choose the "
            "backbone that they were saved from"
        )
    trunk.load_state_dict(renamed, strict=False)


def _fetch_imagenet_state(backbone: str) -> dict[str, Tensor]:
    choice = torchvision_models.get_model_weights(backbone).DEFAULT
    try:
        state: dict[str, Tensor] = choice.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise WeightsError(
            f"model.weights imagenet: torchvision's {backbone} weights are not in the local cache and could not be "
            f"downloaded ({error}); {_ALTERNATIVES}"
        ) from error
    except Exception as error:  # torch raises different types for a wrong hash and for a truncated file
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(choice.url).name
        raise WeightsError(
            f"model.weights imagenet: {cached}: cannot be read ({' '.join(str(error).split())}); "
            f"delete it to download it again, or {_ALTERNATIVES}"
        ) from error
    return state


def _fetch_hub_state(backbone: str) -> dict[str, Tensor]:
    from timm.models import load_state_dict_from_hf

    repository = backbone.removeprefix(HUB)
    try:
        state: dict[str, Tensor] = load_state_dict_from_hf(repository)
    except OSError as error:
        raise WeightsError(
            f"model.weights pretrained: {repository} is neither in the cache nor to be had "
            f"({' '.join(str(error).split())}); {ACCESS}, or give the path of a .safetensors file"
        ) from error
    return state


def _read_state(path: Path, backbone: str) -> dict[str, Tensor]:
    if not path.is_file():
        published = "imagenet" if backbone in TRUNKS else "pretrained" if backbone.startswith(HUB) else None
        download = f"where there is a network, download them (--set model.weights={published}); " if published else ""
        raise WeightsError(f"model.weights {path}: no such file; {download}{_ALTERNATIVES}")
    try:
        state: dict[str, Tensor] = load_file(path)
    except Exception as error:  # safetensors raises its own and plain exceptions
        raise WeightsError(f"model.weights {path}: not a safetensors file: {error}") from error
    return state
