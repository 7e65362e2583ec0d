"""From rows of a pack to network input: decoded pixels, or the cached outputs of frozen trunk parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from oncoshift.serving.classifier import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Inputs(Protocol):
    """Where a network's input comes from."""

    def batch(self, rows: NDArray[np.int64], device: torch.device, rng: np.random.Generator | None = None) -> Tensor:
        """Network input for pack rows, [N, …]; with `rng` a random view of each, where views are possible."""


@dataclass(frozen=True)
class PixelInputs:
    """Tiles themselves.

    Attributes:
        images: uint8 [M, S, S, 3].
    """

    images: NDArray[np.uint8]

    def batch(self, rows: NDArray[np.int64], device: torch.device, rng: np.random.Generator | None = None) -> Tensor:
        """Normalised float tiles [N, 3, S, S]; `rng` turns and mirrors each tile at random."""
        tiles = self.images[rows]
        if rng is not None:
            tiles = random_dihedral(tiles, rng)
        return normalise(torch.from_numpy(tiles).to(device)).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class FeatureInputs:
    """What the frozen parts put out for every row of the pack.

    Attributes:
        values: float16 or float32, [M, C, h, w] or [M, width].
    """

    values: NDArray[np.floating]

    def batch(self, rows: NDArray[np.int64], device: torch.device, rng: np.random.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Float features [N, …]; they stand for the tile as it is, so there are no random views."""
        return torch.from_numpy(self.values[rows]).to(device, torch.float32)


def random_dihedral(tiles: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One of the eight turns and mirrors of each square tile, uint8 [N, S, S, 3]; tissue has no up."""
    views = tiles.copy()
    choice = rng.integers(0, 8, len(tiles))
    for kind in range(1, 8):
        chosen = choice == kind
        if not chosen.any():
            continue
        turned = np.rot90(tiles[chosen], kind % 4, axes=(1, 2))
        views[chosen] = turned[:, :, ::-1] if kind >= 4 else turned
    return views
