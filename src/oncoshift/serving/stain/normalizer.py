"""The interface of a stain normaliser, and how references and normalisers are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from oncoshift.serving.stain.outcome import UnstainableTileError
from oncoshift.serving.stain.reference import StainReference, StainVectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.serving.stain.outcome import Stained, StainOutcome, Tiles
    from oncoshift.serving.stain.reference import GroupStain, Precision, StainMethod


class StainNormalizer(Protocol):
    """A normaliser of RGB uint8 tiles [H, W, 3] to the stain of a reference, never in place.

    Safe to call from several threads, which then run in parallel.
    """

    reference: StainReference

    def __call__(self, image: NDArray[np.uint8]) -> Stained:
        """Normalise one tile by its own fit."""
        ...

    def fit_group(self, images: Tiles) -> GroupStain | StainOutcome:
        """Fit several tiles as one, in bounded memory; returns the reason if that fails."""
        ...

    def apply(self, image: NDArray[np.uint8], stain: GroupStain) -> Stained:
        """Normalise one tile by the fit of its group; a blank tile is returned unchanged."""
        ...


def normalizer(reference: StainReference) -> StainNormalizer:
    """Build the normaliser for a reference; its first tile may wait for the compiler."""
    if reference.method == "reinhard":
        from oncoshift.serving.stain.reinhard import ReinhardNormalizer

        return ReinhardNormalizer(reference)
    from oncoshift.serving.stain.separation import SeparationNormalizer

    return SeparationNormalizer(reference)


def fit_reference(
    image: NDArray[np.uint8],
    method: StainMethod,
    *,
    standardize_luminosity: bool = True,
    precision: Precision = "exact",
) -> StainReference:
    """Fit a tile, RGB uint8 [H, W, 3], as the reference for others; its own fit is always exact.

    Args:
        image: the reference tile; not modified.
        method: reinhard, macenko or vahadane.
        standardize_luminosity: whether to standardise the reference and every tile normalised to
            it.
        precision: of the fits of tiles that are normalised to it.

    Raises:
        UnstainableTileError: the tile is blank or flat.
    """
    if method == "reinhard":
        from oncoshift.serving.stain.reinhard import fit_one

        lab = fit_one(image, standardize=standardize_luminosity)
        return StainReference(method, lab, standardize_luminosity, precision)
    from oncoshift.serving.stain.separation import fit, prepared

    pixels = prepared(image, standardize=standardize_luminosity)
    found: StainVectors | StainOutcome = "flat" if pixels is None else fit(pixels, method)
    if not isinstance(found, StainVectors):
        raise UnstainableTileError(found)
    return StainReference(method, found, standardize_luminosity, precision)
