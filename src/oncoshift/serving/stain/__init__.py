"""Stain normalisation by Reinhard, Macenko and Vahadane as in staintools, compiled and fused.

Needs NumPy and, to normalise a tile or fit a reference, numba.
"""

from __future__ import annotations

from oncoshift.serving.stain.normalizer import StainNormalizer, fit_reference, normalizer
from oncoshift.serving.stain.outcome import MIN_TISSUE, Stained, StainOutcome, Tiles, UnstainableTileError
from oncoshift.serving.stain.reference import (
    GroupStain,
    LabStatistics,
    Precision,
    StainMethod,
    StainReference,
    StainVectors,
)

__all__ = [
    "MIN_TISSUE",
    "GroupStain",
    "LabStatistics",
    "Precision",
    "StainMethod",
    "StainNormalizer",
    "StainOutcome",
    "StainReference",
    "StainVectors",
    "Stained",
    "Tiles",
    "UnstainableTileError",
    "fit_reference",
    "normalizer",
]
