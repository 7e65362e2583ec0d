"""Macenko's and Vahadane's normalisation: two stains are replaced by the reference's.

The steps are staintools' (StainNormalizer): stain vectors from tissue, the 99th percentile of the
concentrations over all pixels, both replaced by the reference's. See `macenko`, `vahadane` and
`concentrations` for each.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain import macenko, vahadane
from oncoshift.serving.stain.concentrations import SPARSITY, concentrations, restain
from oncoshift.serving.stain.density import DENSITY, LUMINANCE, densities, tissue_share
from oncoshift.serving.stain.luminosity import standardized
from oncoshift.serving.stain.outcome import MIN_TISSUE, Stained, StainOutcome
from oncoshift.serving.stain.percentile import percentile
from oncoshift.serving.stain.reference import StainVectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.serving.stain.outcome import Tiles
    from oncoshift.serving.stain.reference import GroupStain, StainMethod, StainReference

SAMPLE = 50_000
"""The least number of pixels in a fast fit of one tile: all of 224², since fewer make the 99th
percentile unreliable (a third costs 0.35 grey levels on average, and ten on some tiles)."""

POOL = {"fast": 100_000, "exact": 4_000_000}
"""Pixels of a group that are held at once; exact holds all of 80 tiles of 224²."""

MIN_CONCENTRATION = 0.01
"""99th percentile of a concentration below which the stain is absent; rounding gives white 0.004.
"""

EXTRACT = {"macenko": macenko.stain_vectors, "vahadane": vahadane.stain_vectors}


class SeparationNormalizer:
    """See `StainNormalizer`."""

    def __init__(self, reference: StainReference) -> None:
        self.reference = reference

    def __call__(self, image: NDArray[np.uint8]) -> Stained:
        """See `StainNormalizer`."""
        pixels = prepared(image, standardize=self.reference.standardize_luminosity)
        if pixels is None:
            return Stained(image, "flat")
        step = lattice_step(len(pixels), SAMPLE if self.reference.precision == "fast" else len(pixels), image.shape[1])
        found = fit(pixels, self.reference.method, step)
        if not isinstance(found, StainVectors):
            return Stained(image, found)
        return Stained(self._painted(pixels, found).reshape(image.shape), "normalised")

    def fit_group(self, images: Tiles) -> StainVectors | StainOutcome:
        """See `StainNormalizer`."""
        return fit(pool(images, self.reference), self.reference.method)

    def apply(self, image: NDArray[np.uint8], stain: GroupStain) -> Stained:
        """See `StainNormalizer`."""
        if not isinstance(stain, StainVectors):
            raise TypeError(f"{self.reference.method} applies StainVectors, got {type(stain).__name__}")
        pixels = prepared(image, standardize=self.reference.standardize_luminosity)
        if pixels is None:
            return Stained(image, "flat")
        if tissue_share(pixels, LUMINANCE) < MIN_TISSUE:
            return Stained(image, "blank")
        return Stained(self._painted(pixels, stain).reshape(image.shape), "normalised")

    def _painted(self, pixels: NDArray[np.uint8], source: StainVectors) -> NDArray[np.uint8]:
        stains = np.array(source.stain_matrix, np.float32)
        return restain(pixels, stains, target_vectors(source, self.reference), DENSITY, SPARSITY)


def target_vectors(source: StainVectors, reference: StainReference) -> NDArray[np.float32]:
    """Scale the reference's stain vectors by the ratio of largest concentrations, [2, 3]."""
    target = reference.fit
    if not isinstance(target, StainVectors):
        raise TypeError(f"a {reference.method} reference holds StainVectors")
    ratio = np.array(target.max_concentrations) / np.array(source.max_concentrations)
    return np.ascontiguousarray((np.array(target.stain_matrix) * ratio[:, None]).astype(np.float32))


def prepared(image: NDArray[np.uint8], *, standardize: bool) -> NDArray[np.uint8] | None:
    """Return a tile's pixels [n, 3], standardised if `standardize`; then None for a black tile."""
    pixels = np.ascontiguousarray(image).reshape(-1, 3)
    return standardized(pixels) if standardize and len(pixels) else pixels


def lattice_step(there: int, wanted: int, width: int) -> int:
    """Return the step that samples about `wanted` pixels, and no fewer, of those `there`.

    It is coprime to the width, so that the sampled pixels are spread over all columns.
    """
    step = max(1, there // max(wanted, 1))
    while gcd(step, width) != 1:
        step -= 1
    return step


def fit(pixels: NDArray[np.uint8], method: StainMethod, step: int = 1) -> StainVectors | StainOutcome:
    """Fit stains and largest concentrations to every `step`-th RGB pixel [n, 3], or say why not."""
    everything, tissue = densities(pixels, step, DENSITY, LUMINANCE)
    if not tissue.shape[1] or tissue.shape[1] < MIN_TISSUE * everything.shape[1]:
        return "blank"
    stains = EXTRACT[method](tissue)
    if stains is None:
        return "flat"
    amounts = concentrations(everything, stains.astype(np.float32), SPARSITY)
    return judge_vectors(stains, percentile(amounts[0], 99), percentile(amounts[1], 99))


def judge_vectors(stains: NDArray[np.float64] | None, first: float, second: float) -> StainVectors | StainOutcome:
    """Return stain vectors [2, 3] and largest concentrations as a fit, or flat if unusable."""
    if stains is None or not np.isfinite(stains).all() or not min(first, second) >= MIN_CONCENTRATION:
        return "flat"
    (h0, h1, h2), (e0, e1, e2) = stains.tolist()
    return StainVectors(((h0, h1, h2), (e0, e1, e2)), (first, second))


def pool(images: Tiles, reference: StainReference) -> NDArray[np.uint8]:
    """Sample pixels [n, 3] from the tiles of a group, in order, except blank and black tiles.

    Every tile is sampled on the same lattice, so that each has its weight; the lattice is as fine
    as `POOL` allows.
    """
    kept = []
    for image in images:
        height, width = image.shape[:2]
        step = lattice_step(height * width * len(images), POOL[reference.precision], width)
        pixels = prepared(image, standardize=reference.standardize_luminosity)
        if pixels is not None and tissue_share(pixels, LUMINANCE) >= MIN_TISSUE:
            kept.append(pixels[::step])
    return np.ascontiguousarray(np.concatenate(kept)) if kept else np.empty((0, 3), np.uint8)
