"""The same normalisation in batches of tensors, for a GPU; it also runs on the CPU, where numba is faster.

Whatever is a few numbers a tile (statistics, eigenvectors, the order of stains) goes through the very functions of the
compiled backend, so that the two differ by no more than the rounding of single precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from oncoshift.data.stain import torch_kernels as kernels
from oncoshift.serving.stain import MIN_TISSUE, LabStatistics, StainOutcome, StainVectors, normalizer
from oncoshift.serving.stain.luminosity import stretch
from oncoshift.serving.stain.macenko import extreme_ranks, main_plane, vectors_at
from oncoshift.serving.stain.percentile import between, rank
from oncoshift.serving.stain.reinhard import judge, transfer
from oncoshift.serving.stain.separation import SAMPLE, judge_vectors, lattice_step, target_vectors
from oncoshift.serving.stain.vahadane import ordered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.data.stain.backend import Batch
    from oncoshift.serving.stain import StainReference

Fits = list[StainVectors | StainOutcome]


class TorchBackend:
    """See `StainBackend`. With one fit a group only painting is left, so a group's tiles go through the kernels.

    Args:
        reference: what to normalise to.
        device: default: the GPU if there is one.
    """

    def __init__(self, reference: StainReference, device: str | None = None) -> None:
        self._reference = reference
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._tables = kernels.Tables(self._device)
        compiled = normalizer(reference)
        self.fit_group = compiled.fit_group
        self.apply = compiled.apply

    @torch.inference_mode()
    def batch(self, images: NDArray[np.uint8]) -> Batch:
        """See `StainBackend`."""
        if not len(images):
            return images.copy(), []
        given = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
        pixels = given.reshape(len(images), -1, 3)
        black: list[bool] = [False] * len(images)
        if self._reference.standardize_luminosity:
            pixels, black = self._standardized(pixels)
        if self._reference.method == "reinhard":
            painted, outcomes = self._reinhard(pixels)
        else:
            painted, outcomes = self._separated(pixels, images.shape[2])
        outcomes = ["flat" if dark else outcome for dark, outcome in zip(black, outcomes, strict=True)]
        done = torch.tensor([outcome == "normalised" for outcome in outcomes], device=self._device)
        result = torch.where(done[:, None, None, None], painted.reshape(given.shape), given)
        return result.cpu().numpy(), outcomes

    def _standardized(self, pixels: Tensor) -> tuple[Tensor, list[bool]]:
        """Pixels [N, P, 3] with their luminosity standardised, and which tiles are black."""
        lab = kernels.to_lab(pixels, self._tables)
        mappings = [stretch(counts) for counts in kernels.count(lab).cpu().numpy()]
        black = [mapping is None for mapping in mappings]
        return kernels.from_lab(lab, kernels.stacked(mappings, self._device), self._tables), black

    def _reinhard(self, pixels: Tensor) -> tuple[Tensor, list[StainOutcome]]:
        lab = kernels.to_lab(pixels, self._tables)
        found = [judge(counts) for counts in kernels.count(lab).cpu().numpy()]
        target = self._reference.fit
        if not isinstance(target, LabStatistics):
            raise TypeError("a Reinhard reference holds LabStatistics")
        mappings = [transfer(fit, target) if isinstance(fit, LabStatistics) else None for fit in found]
        painted = kernels.from_lab(lab, kernels.stacked(mappings, self._device), self._tables)
        return painted, [fit if isinstance(fit, str) else "normalised" for fit in found]

    def _separated(self, pixels: Tensor, width: int) -> tuple[Tensor, list[StainOutcome]]:
        there = pixels.shape[1]
        step = lattice_step(there, SAMPLE if self._reference.precision == "fast" else there, width)
        found = self._fits(pixels[:, ::step])
        stains = np.tile(np.eye(2, 3, dtype=np.float32), (len(pixels), 1, 1))
        target = stains.copy()
        for row, fit in enumerate(found):
            if isinstance(fit, StainVectors):
                stains[row], target[row] = fit.stain_matrix, target_vectors(fit, self._reference)
        density = kernels.densities(pixels, self._tables)
        amounts = kernels.concentrations(density, torch.from_numpy(stains).to(self._device))
        painted = kernels.painted(amounts, torch.from_numpy(target).to(self._device))
        return painted, [fit if isinstance(fit, str) else "normalised" for fit in found]

    def _fits(self, pixels: Tensor) -> Fits:
        """A fit for each tile's pixels [N, P, 3]; see `separation.fit`."""
        density = kernels.densities(pixels, self._tables)
        tissue = kernels.tissue(pixels, self._tables)
        sizes = tissue.sum(dim=1).tolist()
        blank = [not size or size < MIN_TISSUE * pixels.shape[1] for size in sizes]
        stains = self._stains(density, tissue, sizes, blank)
        usable = np.stack([np.eye(2, 3) if each is None else each for each in stains]).astype(np.float32)
        amounts = kernels.concentrations(density, torch.from_numpy(usable).to(self._device))
        below, share = rank(pixels.shape[1], 99)
        tops = kernels.at_ranks(amounts, torch.full((len(pixels), 1), below, device=self._device)).cpu().numpy()
        fits: Fits = []
        for row, vectors in enumerate(stains):
            first, second = (between(float(low), float(high), share) for low, high in tops[row, :, 0])
            fits.append("blank" if blank[row] else judge_vectors(vectors, first, second))
        return fits

    def _stains(
        self, density: Tensor, tissue: Tensor, sizes: list[int], blank: list[bool]
    ) -> list[NDArray[np.float64] | None]:
        """Stain vectors [2, 3] of each tile, or None for tissue of one colour."""
        covariances = kernels.covariance(density, tissue).cpu().numpy()
        planes = [
            None if bare or size < 2 else main_plane(covariance)
            for bare, size, covariance in zip(blank, sizes, covariances, strict=True)
        ]
        axes = np.stack([np.eye(3, 2) if plane is None else plane for plane in planes]).astype(np.float32)
        turns = kernels.turns(density, torch.from_numpy(axes).to(self._device)).masked_fill(~tissue, torch.inf)
        ends = [extreme_ranks(max(size, 2)) for size in sizes]
        ranks = torch.tensor([[below for below, _ in end] for end in ends], device=self._device)
        values = kernels.at_ranks(turns[:, None], ranks)[:, 0].cpu().numpy()
        stains = [
            None if plane is None else vectors_at(plane, value, [share for _, share in end])
            for plane, value, end in zip(planes, values, ends, strict=True)
        ]
        return stains if self._reference.method == "macenko" else self._sparse(density, tissue, stains)

    def _sparse(
        self, density: Tensor, tissue: Tensor, starts: list[NDArray[np.float64] | None]
    ) -> list[NDArray[np.float64] | None]:
        """Vahadane's stain vectors, from Macenko's."""
        rows = [row for row, start in enumerate(starts) if start is not None]
        found: list[NDArray[np.float64] | None] = [None] * len(starts)
        if not rows:
            return found
        atoms = np.stack([np.maximum(start, 0.0) for start in starts if start is not None])
        best = kernels.converge(density[rows], tissue[rows], torch.from_numpy(atoms).to(self._device))
        for row, each in zip(rows, best.cpu().numpy(), strict=True):
            found[row] = ordered(each)
        return found
