"""staintools as a backend: slow, and the reference that the compiled kernels are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from staintools import LuminosityStandardizer, ReinhardColorNormalizer, StainNormalizer
from staintools.miscellaneous.get_concentrations import get_concentrations

from oncoshift.serving.stain import GroupStain, LabStatistics, Stained, StainOutcome, StainVectors, normalizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.serving.stain import StainReference, Tiles


class StaintoolsNormalizer:
    """A normaliser that calls staintools; see `oncoshift.serving.stain.StainNormalizer`.

    Blank and flat tiles are detected as in the other backend, because staintools would raise or
    paint them black. The reference's numbers are used unchanged. A group's fit is that of
    staintools on pixels pooled as in the other backend.
    """

    def __init__(self, reference: StainReference) -> None:
        self.reference = reference
        self._own = normalizer(reference)

    def __call__(self, image: NDArray[np.uint8]) -> Stained:
        """See `oncoshift.serving.stain.StainNormalizer`."""
        outcome = self._own(image).outcome
        if outcome != "normalised":
            return Stained(image, outcome)
        return Stained(np.asarray(self._peer().transform(self._prepared(image)), np.uint8), "normalised")

    def _peer(self) -> ReinhardColorNormalizer | StainNormalizer:
        fit = self.reference.fit
        if isinstance(fit, LabStatistics):
            peer = ReinhardColorNormalizer()
            # staintools keeps each statistic as OpenCV returns it, [1, 1] in float64.
            peer.target_means = tuple(np.full((1, 1), mean) for mean in fit.means)
            peer.target_stds = tuple(np.full((1, 1), std) for std in fit.stds)
            return peer
        peer = StainNormalizer(self.reference.method)
        peer.stain_matrix_target = np.array(fit.stain_matrix)
        peer.maxC_target = np.array([fit.max_concentrations])
        return peer

    def _prepared(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # Parts of staintools write into their argument.
        image = image.copy()
        return LuminosityStandardizer.standardize(image) if self.reference.standardize_luminosity else image

    def fit_group(self, images: Tiles) -> GroupStain | StainOutcome:
        """See `oncoshift.serving.stain.StainNormalizer`."""
        own = self._own.fit_group(images)
        if isinstance(own, str | LabStatistics):
            return own  # staintools has no way to pool statistics
        from oncoshift.serving.stain.separation import pool

        pooled = pool(images, self.reference)[:, None, :]
        stains = StainNormalizer(self.reference.method).extractor.get_stain_matrix(pooled.copy())
        first, second = np.percentile(get_concentrations(pooled.copy(), stains), 99, axis=0).tolist()
        (h0, h1, h2), (e0, e1, e2) = stains.tolist()
        return StainVectors(((h0, h1, h2), (e0, e1, e2)), (first, second))

    def apply(self, image: NDArray[np.uint8], stain: GroupStain) -> Stained:
        """See `oncoshift.serving.stain.StainNormalizer`."""
        own = self._own.apply(image, stain)
        target = self.reference.fit
        if own.outcome != "normalised" or isinstance(stain, LabStatistics) or isinstance(target, LabStatistics):
            return own
        ratio = np.array(target.max_concentrations) / np.array(stain.max_concentrations)
        found = get_concentrations(self._prepared(image), np.array(stain.stain_matrix)) * ratio
        painted = 255 * np.exp(-found @ np.array(target.stain_matrix))
        return Stained(np.clip(painted, 0, 255).reshape(image.shape).astype(np.uint8), "normalised")
