"""Reinhard's colour transfer (Reinhard 2001, IEEE CG&A 21:34) through staintools.

`serving.preprocess.apply_reinhard` gives the same tiles without staintools, for the registered model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from staintools import LuminosityStandardizer, ReinhardColorNormalizer

from oncoshift.data.stain.base import Stained
from oncoshift.errors import DataError
from oncoshift.serving.preprocess import ReinhardReference, stain_outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray


def fit(reference: NDArray[np.uint8]) -> ReinhardReference:
    """Colour statistics of a reference tile, uint8 [S, S, 3], after its luminosity is standardised.

    Raises:
        DataError: the tile has no tissue or no contrast.
    """
    outcome = stain_outcome(reference)
    if outcome != "normalised":
        raise DataError(f"the reference tile is {outcome}; a reference needs tissue with contrast")
    normalizer = ReinhardColorNormalizer()
    normalizer.fit(LuminosityStandardizer.standardize(reference.copy()))
    (m0, m1, m2), (s0, s1, s2) = normalizer.target_means, normalizer.target_stds
    return ReinhardReference((m0.item(), m1.item(), m2.item()), (s0.item(), s1.item(), s2.item()))


class ReinhardNormalizer:
    """Gives tiles the colour statistics of a reference.

    Args:
        reference: what `fit` returned.
    """

    def __init__(self, reference: ReinhardReference) -> None:
        self.reference = reference
        self._normalizer = ReinhardColorNormalizer()
        # staintools holds each statistic as OpenCV returns it, [1, 1] in float64.
        self._normalizer.target_means = tuple(np.full((1, 1), mean) for mean in reference.means)
        self._normalizer.target_stds = tuple(np.full((1, 1), std) for std in reference.stds)

    def __call__(self, image: NDArray[np.uint8]) -> Stained:
        """See `StainNormalizer`."""
        outcome = stain_outcome(image)
        if outcome != "normalised":
            return Stained(image, outcome)
        # Some of staintools writes into its argument; checking first and copying keeps the caller's tile whole.
        stretched = LuminosityStandardizer.standardize(image.copy())
        return Stained(np.asarray(self._normalizer.transform(stretched), dtype=np.uint8), outcome)
