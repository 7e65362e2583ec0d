"""Pretrained weights of the trunk: none, torchvision's ImageNet weights, or a .safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torchvision import models as torchvision_models

from oncoshift.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from oncoshift.serving.classifier import Trunk

_STEM = {"conv1": "stem.0", "bn1": "stem.1"}
_ALTERNATIVES = (
    "give the path of a .safetensors state dict (model.weights=…/resnet50.safetensors), or train from a random "
    "start (model.weights=none)"
)


def load_trunk(trunk: Trunk, backbone: str, weights: str) -> None:
    """Load pretrained weights into a trunk, in place; `none` leaves it as it is.

    Args:
        trunk: the trunk to fill.
        backbone: one of `TRUNKS`.
        weights: none, imagenet, or the path of a .safetensors file with torchvision's names and any
            float type.

    Raises:
        WeightsError: the weights are unavailable, or are those of another network.
    """
    if weights == "none":
        return
    state = _fetch_imagenet_state(backbone) if weights == "imagenet" else _read_state(Path(weights))
    renamed = {_rename(name): tensor.float() for name, tensor in state.items() if not name.startswith("fc.")}
    expected = trunk.state_dict()
    misfits = [
        name
        for name, tensor in expected.items()
        if not name.endswith("num_batches_tracked") and (name not in renamed or renamed[name].shape != tensor.shape)
    ]
    if misfits:
        raise WeightsError(
            f"model.weights {weights}: not the weights of a {backbone}: {len(misfits)} of {len(expected)} tensors are "
            f"missing or of another shape, first {misfits[0]}; choose the backbone that they were saved from"
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


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"model.weights {path}: no such file; {_ALTERNATIVES}")
    try:
        state: dict[str, Tensor] = load_file(path)
    except Exception as error:  # safetensors raises its own and plain exceptions
        raise WeightsError(f"model.weights {path}: not a safetensors file: {error}") from error
    return state


def _rename(name: str) -> str:
    first, _, rest = name.partition(".")
    return f"{_STEM[first]}.{rest}" if first in _STEM else name
