"""The backends of stain normalisation: the compiled kernels of served models, or staintools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from oncoshift.errors import SettingsError
from oncoshift.serving.stain import normalizer

if TYPE_CHECKING:
    from oncoshift.serving.stain import StainNormalizer, StainReference

BackendName = Literal["numba", "staintools"]


def pick_backend(name: str) -> BackendName:
    """Resolve the setting; `auto` is numba everywhere, so that equal settings give equal packs.

    Raises:
        SettingsError: there is no such backend.
    """
    if name == "auto":
        return "numba"
    if name not in get_args(BackendName):
        raise SettingsError(f"normalize.backend: {name!r} is not one of auto, {', '.join(get_args(BackendName))}")
    return name  # type: ignore[return-value]  # just checked


def build_normalizer(reference: StainReference, backend: str = "auto") -> StainNormalizer:
    """Build the normaliser of a backend for a reference, with the reference's own precision.

    Raises:
        SettingsError: there is no such backend.
    """
    if pick_backend(backend) == "numba":
        return normalizer(reference)
    from oncoshift.data.stain.staintools_backend import StaintoolsNormalizer

    return StaintoolsNormalizer(reference)
