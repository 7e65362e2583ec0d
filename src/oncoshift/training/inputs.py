"""Network input for rows of a pack: pixels, or cached outputs of frozen trunk parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from oncoshift.serving.classifier import normalise
from oncoshift.training.devices import send

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from oncoshift.data.tables import Images

    View = Callable[[Tensor], Tensor]


class Inputs(Protocol):
    """A source of network input."""

    def batch(self, rows: NDArray[np.int64], device: torch.device, view: View | None = None) -> Tensor:
        """Return network input for pack rows, [N, …], augmented by `view` if possible."""


@dataclass(frozen=True)
class PixelInputs:
    """The tiles themselves.

    Attributes:
        images: uint8 [M, S, S, 3].
    """

    images: Images

    def batch(self, rows: NDArray[np.int64], device: torch.device, view: View | None = None) -> Tensor:
        """Return normalised tiles [N, 3, S, S]; `view` gets them as uint8 [N, S, S, 3]."""
        tiles = send(torch.from_numpy(self.images[rows]), device)
        if view is not None:
            tiles = view(tiles)
        return normalise(tiles).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class FeatureInputs:
    """The outputs of the frozen parts for every row of the pack.

    Attributes:
        values: float16 or float32, [M, C, h, w] or [M, width].
    """

    values: NDArray[np.floating]

    def __getstate__(self) -> dict[str, object]:
        """Pickle a memory-mapped file as its path instead of its content."""
        path = getattr(self.values, "filename", None)
        return {"values": self.values if path is None else Path(path)}

    def __setstate__(self, state: dict[str, object]) -> None:
        values = state["values"]
        object.__setattr__(self, "values", np.load(values, mmap_mode="r") if isinstance(values, Path) else values)

    def batch(self, rows: NDArray[np.int64], device: torch.device, view: View | None = None) -> Tensor:  # noqa: ARG002
        """Return float features [N, …]; they are of the tile as it is, so `view` is ignored."""
        return send(torch.from_numpy(self.values[rows]), device).float()
