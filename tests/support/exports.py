"""Exports by torch.export of equal networks, made once: one takes seconds, and most tests use one.

What comes back is what torch made of the same weights before, in a copy of the same file.
"""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

from oncoshift.models.export import export_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from oncoshift.serving.eager import ServedModule
    from oncoshift.serving.network import Network


def exporting_once(folder: Path) -> Callable[[ServedModule, Tensor, Path], Network]:
    """Return a function like `export_program` that keeps what it made in a folder."""
    made: dict[str, Network] = {}

    def export(module: ServedModule, example: Tensor, path: Path) -> Network:
        digest = hashlib.sha256(repr((module, example.shape)).encode())
        for name, value in module.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        kept = folder / digest.hexdigest()
        if kept.name not in made:
            made[kept.name] = export_program(module, example, kept.with_suffix(path.suffix))
        shutil.copyfile(kept.with_suffix(path.suffix), path)
        return made[kept.name]

    return export
