"""Stain normalisation of a data set: the rule that picks the reference, and the backends."""

from __future__ import annotations

from oncoshift.data.stain.backend import BackendName, build_normalizer, pick_backend
from oncoshift.data.stain.reference import compute_tile_statistics, pick_reference

__all__ = ["BackendName", "build_normalizer", "compute_tile_statistics", "pick_backend", "pick_reference"]
