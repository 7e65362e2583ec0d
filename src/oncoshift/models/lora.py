"""LoRA (Hu 2022, arXiv 2106.09685) of a vision transformer's attention, by the library peft.

A layer W x + b of a frozen trunk becomes W x + b + B A x, with trained A [rank, in] and B
[out, rank]. B starts at 0, so training starts from the trunk as loaded. What is served has W + B A
in the place of W, so it is a plain network and needs no peft.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch
from torch import nn

from oncoshift.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from oncoshift.serving.classifier import Trunk
    from oncoshift.serving.timm_trunk import TimmTrunk

LIBRARY = "peft"
_ADAPTED = (".attn.qkv", ".attn.proj")
_NAME = "default"
_INSTALL = "pip install peft"


def list_lora_libraries(rank: int | None) -> tuple[str, ...]:
    """List the libraries whose versions decide what LoRA of a rank computes; None: there is none.

    Raises:
        SettingsError: peft is needed and not installed.
    """
    if rank is None:
        return ()
    try:
        version(LIBRARY)
    except PackageNotFoundError as error:
        raise SettingsError(f"model.lora {rank}: needs {LIBRARY}, which is not installed; {_INSTALL}") from error
    return (LIBRARY,)


def add_lora(trunk: Trunk | TimmTrunk, backbone: str, rank: int, parts: Sequence[str]) -> None:
    """Freeze a trunk, in place, and add adapters to the attention in some of its parts.

    Torch's global seed decides their weights.

    Args:
        trunk: with its pretrained weights.
        backbone: its name, for the message.
        rank: of the adapters, ≥ 1.
        parts: names of the parts, of `PARTS`.

    Raises:
        SettingsError: peft is missing, or those parts have no attention of the usual names.
    """
    layers = [
        f"{part}.{name}"
        for part in parts
        for name, layer in getattr(trunk, part).named_modules()
        if isinstance(layer, nn.Linear) and name.endswith(_ADAPTED)
    ]
    if not layers:
        raise SettingsError(
            f"model.lora {rank}: {backbone} has no attention of the form {' and '.join(_ADAPTED)} in what is trained; "
            "choose a vision transformer, such as timm/vit_small_patch16_224, or set model.lora to null"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise SettingsError(f"model.lora {rank}: needs {LIBRARY} ({error}); {_INSTALL}") from error
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), trunk, _NAME)


@torch.no_grad()
def merge_lora(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state dict with its adapters merged, and the names it had before LoRA.

    The module stays as it is.
    """
    from peft.tuners.lora import LoraLayer

    state: dict[str, Tensor] = module.state_dict()
    for name, layer in module.named_modules():
        if isinstance(layer, LoraLayer):
            inner = f"{name}.base_layer."
            base = {key.removeprefix(inner): tensor for key, tensor in state.items() if key.startswith(inner)}
            base["weight"] = base["weight"] + layer.get_delta_weight(_NAME)
            state = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")}
            state |= {f"{name}.{key}": tensor for key, tensor in base.items()}
    return state
