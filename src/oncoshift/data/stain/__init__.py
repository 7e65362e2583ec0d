"""Stain normalisation of a data set: the rule that picks the reference, and the backends that do the work."""

from __future__ import annotations

from oncoshift.data.stain.backend import BackendName, StainBackend, build, pick_backend
from oncoshift.data.stain.reference import nearest_to_median, tile_statistics

__all__ = ["BackendName", "StainBackend", "build", "nearest_to_median", "pick_backend", "tile_statistics"]
