"""Stain normalisation's arithmetic on batches of tensors; the modules of `serving.stain` say what each part means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from oncoshift.serving.stain import lab as lab_tables
from oncoshift.serving.stain import vahadane
from oncoshift.serving.stain.concentrations import SPARSITY
from oncoshift.serving.stain.density import DENSITY, LUMINANCE, WHITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Tables:
    """The tables of `serving.stain.lab` and `density` on a device.

    Whole numbers are int32 where they are added, multiplied and shifted.
    """

    def __init__(self, device: torch.device) -> None:
        self.linear, self.to_xyz, self.cube_root, self.cube, self.to_rgb, self.encoded, self.luminance = (
            torch.from_numpy(table.copy()).to(device)
            for table in (
                lab_tables.LINEAR,
                lab_tables.TO_XYZ,
                lab_tables.CUBE_ROOT,
                lab_tables.CUBE,
                lab_tables.TO_RGB,
                lab_tables.ENCODED,
                LUMINANCE,
            )
        )
        self.density = torch.from_numpy(DENSITY.copy()).to(device)


def to_lab(pixels: Tensor, tables: Tables) -> Tensor:
    """8-bit LAB of RGB pixels, uint8 [N, P, 3]; see `lab.to_lab`."""
    r, g, b = tables.linear[pixels.int()].unbind(-1)
    x, y, z = (tables.cube_root[(r * row[0] + g * row[1] + b * row[2] + (1 << 11)) >> 12] for row in tables.to_xyz)
    lightness = (296 * y - 1_336_935 + (1 << 14)) >> 15
    a = (500 * (x - y) + (128 << 15) + (1 << 14)) >> 15
    b = (200 * (y - z) + (128 << 15) + (1 << 14)) >> 15
    return torch.stack([lightness, a, b], dim=-1).to(torch.uint8)


def from_lab(lab: Tensor, mappings: Tensor, tables: Tables) -> Tensor:
    """RGB of 8-bit LAB pixels [N, P, 3] after `mappings`, int32 [N, 3, 256]; see `lab.from_lab`."""
    channels = lab.long().unbind(-1)
    both, along_a, along_b = (mappings[:, row].gather(1, channel) for row, channel in enumerate(channels))
    y, f = both & 0xFFFF, both >> 16
    x, z = tables.cube[f + along_a], tables.cube[f - along_b]
    levels = [((x * row[0] + y * row[1] + z * row[2] + (1 << 13)) >> 14).clamp(0, 4095) for row in tables.to_rgb]
    return tables.encoded[torch.stack(levels, dim=-1)]


def stacked(mappings: Sequence[NDArray[np.uint8] | None], device: torch.device) -> Tensor:
    """What `from_lab` looks up for each tile's mapping uint8 [3, 256]; None changes nothing."""
    given = [lab_tables.UNCHANGED if mapping is None else mapping for mapping in mappings]
    return torch.from_numpy(np.stack([lab_tables.mapped_terms(mapping, lab_tables.LIGHTNESS) for mapping in given])).to(
        device
    )


def count(lab: Tensor) -> Tensor:
    """How often each value occurs in L, a and b, int64 [N, 3, 256], of pixels [N, P, 3]."""
    channels = lab.permute(0, 2, 1).long()
    counts = torch.zeros((len(lab), 3, 256), dtype=torch.int64, device=lab.device)
    return counts.scatter_add_(2, channels, torch.ones_like(channels))


def densities(pixels: Tensor, tables: Tables) -> Tensor:
    """Optical density, float32 [N, 3, P], of pixels [N, P, 3]."""
    return tables.density[pixels.int()].permute(0, 2, 1).contiguous()


def tissue(pixels: Tensor, tables: Tables) -> Tensor:
    """Which pixels are tissue, bool [N, P]."""
    levels = pixels.int().unbind(-1)
    return sum(tables.luminance[c][levels[c]] for c in range(3)) < WHITE  # type: ignore[return-value]


def covariance(density: Tensor, mask: Tensor) -> Tensor:
    """Covariance, float64 [N, 3, 3], of the densities [N, 3, P] under a mask [N, P]."""
    weights = mask.double()[:, None]
    size = weights.sum(dim=2, keepdim=True)
    centred = (density - (density * weights).sum(dim=2, keepdim=True) / size.clamp(min=1)) * weights
    return centred @ centred.transpose(1, 2) / (size - 1).clamp(min=1)


def turns(density: Tensor, planes: Tensor) -> Tensor:
    """What stands for the angle in each tile's plane [N, 3, 2], [N, P]; see `macenko._turns`."""
    u, v = (planes.transpose(1, 2) @ density).unbind(1)
    turn = v / (u.abs() + v.abs() + 1e-12)
    return torch.where(u < 0, torch.where(v >= 0, 2.0, -2.0) - turn, turn)


def at_ranks(values: Tensor, ranks: Tensor) -> Tensor:
    """Sorted `values` [N, C, P] at `ranks` [N, R] and after them, [N, C, R, 2]."""
    last = values.shape[2] - 1
    wanted = torch.stack([ranks, (ranks + 1).clamp(max=last)], dim=-1).flatten(1)
    index = wanted[:, None].expand(-1, values.shape[1], -1)
    return values.sort(dim=2).values.gather(2, index).reshape(*values.shape[:2], -1, 2)


def concentrations(density: Tensor, stains: Tensor, sparsity: float = SPARSITY) -> Tensor:
    """Concentrations [N, 2, P] for stain vectors [N, 2, 3] of any length; see `concentrations.concentrations`."""
    gram = stains @ stains.transpose(1, 2)
    hh, ee, overlap = gram[:, 0, 0, None], gram[:, 1, 1, None], gram[:, 0, 1, None]
    p, q = (stains @ density - sparsity).unbind(1)
    scale = 1 / (hh * ee - overlap * overlap)
    s, t = (p * ee - overlap * q) * scale, (q * hh - overlap * p) * scale
    return torch.stack([torch.where(t < 0, p / hh, s), torch.where(s < 0, q / ee, t)], dim=1).clamp(min=0)


def painted(amounts: Tensor, target: Tensor) -> Tensor:
    """Pixels uint8 [N, P, 3] of concentrations [N, 2, P] with vectors [N, 2, 3]."""
    density = target.transpose(1, 2) @ amounts
    return (255 * torch.exp(-density.clamp(min=0))).to(torch.uint8).permute(0, 2, 1).contiguous()


def converge(density: Tensor, mask: Tensor, atoms: Tensor) -> Tensor:
    """Vahadane's atoms, float64 [N, 2, 3], for densities [N, 3, P] under a mask [N, P]; see `vahadane.converge`."""
    weights = mask[:, None].to(density.dtype)
    moving = torch.ones(len(atoms), dtype=torch.bool, device=atoms.device)
    for _ in range(vahadane.MAX_ROUNDS):
        found = concentrations(density, atoms.float(), vahadane.SPARSITY) * weights
        gram = (found.double() @ found.double().transpose(1, 2))[..., None]
        cross = found.double() @ density.double().transpose(1, 2)
        better = atoms.clone()
        for j in range(2):
            rest = cross[:, j] - gram[:, j, 0] * better[:, 0] - gram[:, j, 1] * better[:, 1]
            atom = (better[:, j] + rest / gram[:, j, j].clamp(min=1e-12)).clamp(min=0)
            atom = atom / atom.norm(dim=1, keepdim=True).clamp(min=1)
            better[:, j] = torch.where(gram[:, j, j] > 0, atom, better[:, j])
        # A tile that stood still stays as it is, so that its neighbours in the batch do not change it.
        change = (better - atoms).abs().amax(dim=(1, 2))
        atoms = torch.where(moving[:, None, None], better, atoms)
        moving = moving & (change > vahadane.STILL)
        if not moving.any():
            break
    return atoms
