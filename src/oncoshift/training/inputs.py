"""From rows of a pack to network input: decoded pixels, or the cached outputs of frozen trunk parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from oncoshift.serving.classifier import normalise

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from oncoshift.data.tables import Images

    View = Callable[[Tensor], Tensor]


class Inputs(Protocol):
    """Where a network's input comes from."""

    def batch(self, rows: NDArray[np.int64], device: torch.device, view: View | None = None) -> Tensor:
        """Network input for pack rows, [N, …]; `view` gives other views of tiles, where views are possible."""


@dataclass(frozen=True)
class PixelInputs:
    """Tiles themselves.

    Attributes:
        images: uint8 [M, S, S, 3].
    """

    images: Images

    def batch(self, rows: NDArray[np.int64], device: torch.device, view: View | None = None) -> Tensor:
        """Normalised float tiles [N, 3, S, S]; `view` sees uint8 tiles [N, S, S, 3] on the device."""
        tiles = torch.from_numpy(self.images[rows])
        if device.type == "cuda":
            tiles = tiles.pin_memory().to(device, non_blocking=True)
        if view is not None:
            tiles = view(tiles)
        return normalise(tiles).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class FeatureInputs:
    """What the frozen parts put out for every row of the pack.

    Attributes:
        values: float16 or float32, [M, C, h, w] or [M, width].
    """

    values: NDArray[np.floating]

    def __getstate__(self) -> dict[str, object]:
        """To another process goes the path of a mapped file; pickle would copy what is in it."""
        path = getattr(self.values, "filename", None)
        return {"values": self.values if path is None else Path(path)}

    def __setstate__(self, state: dict[str, object]) -> None:
        values = state["values"]
        object.__setattr__(self, "values", np.load(values, mmap_mode="r") if isinstance(values, Path) else values)

    def batch(self, rows: NDArray[np.int64], device: torch.device, view: View | None = None) -> Tensor:  # noqa: ARG002
        """Float features [N, …]; they stand for the tile as it is, so there are no other views."""
        return torch.from_numpy(self.values[rows]).to(device, torch.float32)
