"""What a stain normaliser does, and how a reference and a normaliser come to be."""

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
    """Brings tiles, RGB uint8 [H, W, 3], to the stain of a reference; never changes a tile that it is given.

    Safe to call from several threads, which then work at the same time.
    """

    reference: StainReference

    def __call__(self, image: NDArray[np.uint8]) -> Stained:
        """Normalise one tile by its own fit."""
        ...

    def fit_group(self, images: Tiles) -> GroupStain | StainOutcome:
        """One fit for several tiles, or why there is none; holds few pixels, however many tiles there are."""
        ...

    def apply(self, image: NDArray[np.uint8], stain: GroupStain) -> Stained:
        """Normalise one tile by the fit of its group; a blank tile is kept all the same."""
        ...


def normalizer(reference: StainReference) -> StainNormalizer:
    """The compiled normaliser for a reference; its first tile waits for the compiler, unless that left its cache."""
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
    """Fit a tile, RGB uint8 [H, W, 3], to normalise others to. The reference's own fit is always exact.

    Args:
        image: the reference tile; never changed.
        method: reinhard, macenko or vahadane.
        standardize_luminosity: of the reference and of every tile normalised to it.
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
