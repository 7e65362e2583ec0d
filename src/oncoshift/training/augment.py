"""Random views of a batch, on its device: rotations, reflections and stain jitter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from oncoshift.training.devices import send

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

HAEMATOXYLIN = (0.5626, 0.7201, 0.4062)
EOSIN = (0.2159, 0.8012, 0.5581)
"""Unit optical-density vectors (R, G, B) of Macenko 2009's reference slide."""


@dataclass(frozen=True)
class Augmentation:
    """The augmentations that a tile may get.

    Attributes:
        dihedral: one of the eight symmetries of the square; tissue has no upright orientation.
        stain_jitter: standard deviation of the logarithm of each stain's strength; 0 leaves colours
            alone.
    """

    dihedral: bool
    stain_jitter: float = 0.0

    @property
    def is_active(self) -> bool:
        """Whether a view can differ from its tile."""
        return self.dihedral or self.stain_jitter > 0

    def draw(self, count: int, rng: np.random.Generator) -> Views:
        """Draw random views for `count` tiles; only `rng` decides them, whatever the device."""
        return Views(
            rng.integers(0, 8, count) if self.dihedral else None,
            np.exp(rng.normal(0.0, self.stain_jitter, (count, 2))) if self.stain_jitter > 0 else None,
        )


@dataclass(frozen=True)
class Views:
    """The augmentation of each tile of a batch.

    Attributes:
        turns: int64 [N], see `turn`; None leaves tiles as they lie.
        strengths: float64 [N, 2], see `restain`; None leaves stains alone.
    """

    turns: NDArray[np.int64] | None
    strengths: NDArray[np.float64] | None

    def __getitem__(self, part: slice) -> Views:
        """Return the views of a part of the batch."""
        turns, strengths = self.turns, self.strengths
        return Views(None if turns is None else turns[part], None if strengths is None else strengths[part])

    def __call__(self, tiles: Tensor) -> Tensor:
        """Apply the views to tiles, uint8 [N, S, S, 3] → uint8 [N, S, S, 3]."""
        if self.turns is not None:
            tiles = turn(tiles, self.turns.tolist())
        return tiles if self.strengths is None else restain(tiles, torch.from_numpy(self.strengths))


def turn(tiles: Tensor, kinds: list[int]) -> Tensor:
    """Rotate tiles [N, S, S, C] by `kind % 4` right angles, and reflect them from kind 4 on."""
    views = torch.empty_like(tiles)
    found, counts = np.unique(kinds, return_counts=True)
    positions = send(torch.from_numpy(np.argsort(kinds, kind="stable")), tiles.device)
    for kind, chosen in zip(found.tolist(), torch.split(positions, counts.tolist()), strict=True):
        turned = torch.rot90(tiles[chosen], kind % 4, dims=(1, 2))
        views[chosen] = turned.flip(2) if kind >= 4 else turned
    return views


def restain(tiles: Tensor, strengths: Tensor) -> Tensor:
    """Change the strength of each tile's stains; glass stays white.

    A pixel's optical density is decomposed into haematoxylin, eosin and a residual orthogonal to
    both; the first two are scaled (stain augmentation of Tellez 2018, IEEE TMI 37:2126, without its
    shift, which would stain glass).

    Args:
        tiles: uint8 [N, S, S, 3].
        strengths: factors [N, 2] of haematoxylin and eosin.

    Returns:
        uint8 [N, S, S, 3].
    """
    stains = torch.tensor([HAEMATOXYLIN, EOSIN], dtype=torch.float64)
    rest = torch.linalg.cross(stains[0], stains[1])
    basis = torch.cat([stains, (rest / rest.norm())[None]])
    scale = torch.cat([strengths.double().cpu(), torch.ones(len(tiles), 1, dtype=torch.float64)], dim=1)
    change = send((torch.linalg.inv(basis) @ (scale[:, :, None] * basis)).float(), tiles.device)  # [N, 3, 3]
    density = -torch.log(tiles.clamp(min=1).float() / 255).flatten(1, 2)
    changed = torch.bmm(density, change)
    return (255 * torch.exp(-changed)).round_().clamp_(0, 255).to(torch.uint8).view_as(tiles)
