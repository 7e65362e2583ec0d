"""Reinhard's colour transfer: a tile gets the reference's mean and spread of L, a and b.

E. Reinhard et al., Color transfer between images, IEEE CG&A 21:34, 2001; scaling, rounding and
number types follow staintools (ReinhardColorNormalizer). In 8 bits every output channel depends on
one input channel, so statistics are computed from 3 × 256 counts and the transfer is a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain.compiled import compiled_strictly
from oncoshift.serving.stain.lab import from_lab, to_lab
from oncoshift.serving.stain.luminosity import standardized
from oncoshift.serving.stain.outcome import MIN_TISSUE, Stained, StainOutcome, UnstainableTileError
from oncoshift.serving.stain.reference import LabStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.serving.stain.outcome import Tiles
    from oncoshift.serving.stain.reference import GroupStain, StainReference

MIN_CONTRAST = 0.5
"""Standard deviation of L, a or b below which a tile is flat; rounding gives a grey tile 0.3."""

TISSUE_LEVELS = 204
"""8-bit L below which a pixel is tissue: 0.8 · 255, staintools' threshold."""

_LEVELS = np.arange(256, dtype=np.float32)
SCALED = np.stack([_LEVELS / np.float32(2.55), _LEVELS - 128, _LEVELS - 128]).astype(np.float64)
"""Values that an 8-bit L, a or b stands for, rounded as in staintools, [3, 256]."""


def lab_statistics(counts: NDArray[np.int64]) -> LabStatistics:
    """Compute means and standard deviations from histograms of 8-bit L, a and b, [3, 256]."""
    (m0, m1, m2), (s0, s1, s2) = _statistics(counts, SCALED).tolist()
    return LabStatistics((m0, m1, m2), (s0, s1, s2))


@compiled_strictly
def _statistics(counts: NDArray[np.int64], scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute means and standard deviations, [2, 3]."""
    found = np.empty((2, 3))
    share = 1 / counts[0].sum()
    for c in range(3):
        total = squares = 0.0
        for i in range(256):
            total += counts[c, i] * scaled[c, i]
            squares += counts[c, i] * (scaled[c, i] * scaled[c, i])
        mean = total * share
        found[0, c] = mean
        found[1, c] = np.sqrt(max(squares * share - mean * mean, 0.0))
    return found


def transfer(source: LabStatistics, target: LabStatistics) -> NDArray[np.uint8]:
    """Tabulate the new value of each value of L, a and b, uint8 [3, 256]."""
    return _transfer(np.array([source.means, source.stds, target.means, target.stds]), SCALED)


@compiled_strictly
def _transfer(figures: NDArray[np.float64], scaled: NDArray[np.float64]) -> NDArray[np.uint8]:
    """See `transfer`; `figures` are source means and stds, then the target's, [4, 3]."""
    mapping = np.empty((3, 256), np.uint8)
    for c in range(3):
        ratio = figures[3, c] / figures[1, c]
        for i in range(256):
            level = (scaled[c, i] - figures[0, c]) * ratio + figures[2, c]
            level = level * 2.55 if c == 0 else level + 128.0
            mapping[c, i] = np.uint8(np.int64(min(max(level, 0.0), 255.0)))
    return mapping


class ReinhardNormalizer:
    """See `StainNormalizer`. Counting needs no sampling, so precision fast equals exact."""

    def __init__(self, reference: StainReference) -> None:
        self.reference = reference

    def __call__(self, image: NDArray[np.uint8]) -> Stained:
        """See `StainNormalizer`."""
        lab, counts, outcome = _measure(image, standardize=self.reference.standardize_luminosity)
        if outcome != "normalised":
            return Stained(image, outcome)
        return self._painted(image, lab, lab_statistics(counts))

    def fit_group(self, images: Tiles) -> LabStatistics | StainOutcome:
        """See `StainNormalizer`."""
        return fit(images, standardize=self.reference.standardize_luminosity)

    def apply(self, image: NDArray[np.uint8], stain: GroupStain) -> Stained:
        """See `StainNormalizer`."""
        if not isinstance(stain, LabStatistics):
            raise TypeError(f"reinhard applies LabStatistics, got {type(stain).__name__}")
        lab, _, outcome = _measure(image, standardize=self.reference.standardize_luminosity)
        if outcome == "blank" or not len(lab):
            return Stained(image, outcome)
        return self._painted(image, lab, stain)

    def _painted(self, image: NDArray[np.uint8], lab: NDArray[np.int32], source: LabStatistics) -> Stained:
        target = self.reference.fit
        if not isinstance(target, LabStatistics):
            raise TypeError("a Reinhard reference holds LabStatistics")
        return Stained(from_lab(lab, transfer(source, target)).reshape(image.shape), "normalised")


def fit(images: Tiles, *, standardize: bool) -> LabStatistics | StainOutcome:
    """Fit all pixels of the non-blank tiles together; returns the reason if that fails."""
    total = np.zeros((3, 256), np.int64)
    for image in images:
        _, counts, outcome = _measure(image, standardize=standardize)
        if outcome != "blank":
            total += counts
    return judge(total)


def fit_one(image: NDArray[np.uint8], *, standardize: bool) -> LabStatistics:
    """Fit one tile.

    Raises:
        UnstainableTileError: it is blank or flat.
    """
    _, counts, outcome = _measure(image, standardize=standardize)
    if outcome != "normalised":
        raise UnstainableTileError(outcome)
    return lab_statistics(counts)


def _measure(
    image: NDArray[np.uint8], *, standardize: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64], StainOutcome]:
    """Return a tile's LAB pixels [n], their histograms [3, 256], and its outcome."""
    pixels: NDArray[np.uint8] | None = np.ascontiguousarray(image).reshape(-1, 3)
    if standardize and pixels is not None and len(pixels):
        pixels = standardized(pixels)
    if pixels is None:  # black
        return np.empty(0, np.int32), np.zeros((3, 256), np.int64), "flat"
    lab, counts = to_lab(pixels)
    found = judge(counts)
    return lab, counts, found if isinstance(found, str) else "normalised"


def judge(counts: NDArray[np.int64]) -> LabStatistics | StainOutcome:
    """Compute statistics from histograms [3, 256] of L, a and b, or return why there are none."""
    n = counts[0].sum()
    if not n or counts[0, :TISSUE_LEVELS].sum() < MIN_TISSUE * n:
        return "blank"
    found = lab_statistics(counts)
    return found if min(found.stds) >= MIN_CONTRAST else "flat"
