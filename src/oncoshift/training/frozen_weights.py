"""Weights of frozen parts, kept once for all trainings that have them.

The frozen trunk of a ResNet50 has 94 MB, and the heads that a training adds to it have 2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from oncoshift.files import DamagedFileError, atomic, hold_lock, sweep
from oncoshift.models.network import list_frozen_parts

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    State = dict[str, Tensor]

_MEMBER = re.compile(r"members\.\d+\.")


def split_frozen(state: State, freeze: str) -> tuple[State, State]:
    """Split a served classifier's state dict into what was trained and what was frozen.

    Args:
        state: of one network, or of an ensemble, whose members have the same frozen parts.
        freeze: `model.freeze`.

    Returns:
        The trained tensors by their names, and the frozen ones by their names in one network. A
        frozen tensor that differs between members counts as trained.
    """
    prefixes = tuple(f"trunk.{part}." for part in list_frozen_parts(freeze))
    frozen: State = {}
    trained: State = {}
    for name, tensor in state.items():
        plain = _MEMBER.sub("", name, count=1)
        if not plain.startswith(prefixes) or not torch.equal(frozen.setdefault(plain, tensor), tensor):
            trained[name] = tensor
    return trained, frozen


def join_frozen(trained: State, frozen: State) -> State:
    """Join what `split_frozen` has split; no two tensors share memory, as files cannot say so."""
    members = sorted({found.group() for name in trained if (found := _MEMBER.match(name))})
    shared = {f"{member}{name}": tensor.clone() for member in members for name, tensor in frozen.items()}
    return (shared if members else frozen) | trained


def keep_frozen(frozen: State, folder: Path) -> str:
    """Keep tensors in a folder, unless they are there; return the name to read them by."""
    name = _identify(frozen)
    path = locate_frozen(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder):
        sweep(folder)  # what a killed process left
        try:
            read_frozen(folder, name)
            path.touch()  # a collection of garbage leaves what is young
        except DamagedFileError:
            with atomic(path) as temporary:
                save_file({key: tensor.detach().cpu().contiguous() for key, tensor in frozen.items()}, temporary)
    return name


def read_frozen(folder: Path, name: str) -> State:
    """Read tensors that `keep_frozen` has kept.

    Raises:
        DamagedFileError: they are not there, or not those that were kept.
    """
    path = locate_frozen(folder, name)
    try:
        frozen: State = load_file(path)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{path}: is gone") from error
    except SafetensorError as error:
        raise DamagedFileError(f"{path}: damaged: {error}") from error
    if _identify(frozen) != name:
        raise DamagedFileError(f"{path}: damaged: its tensors are not those that were kept")
    return frozen


def locate_frozen(folder: Path, name: str) -> Path:
    """Return the path of kept tensors."""
    return folder / f"{name}.safetensors"


def _identify(frozen: State) -> str:
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(frozen.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
