"""What normalises many tiles: compiled kernels on the CPU, torch on a GPU, or staintools itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from oncoshift.errors import SettingsError
from oncoshift.serving.stain import normalizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.serving.stain import GroupStain, Stained, StainOutcome, StainReference, Tiles

BackendName = Literal["numba", "torch", "staintools"]

Batch = tuple["NDArray[np.uint8]", list["StainOutcome"]]
"""Tiles uint8 [N, H, W, 3] and what became of each."""


class StainBackend(Protocol):
    """Brings tiles, RGB uint8, to the stain of a reference; never changes a tile that it is given."""

    def batch(self, images: NDArray[np.uint8]) -> Batch:
        """Normalise tiles [N, H, W, 3], each by its own fit."""
        ...

    def fit_group(self, images: Tiles) -> GroupStain | StainOutcome:
        """One fit for several tiles [H, W, 3], or why there is none."""
        ...

    def apply(self, image: NDArray[np.uint8], stain: GroupStain) -> Stained:
        """Normalise a tile [H, W, 3] by the fit of its group."""
        ...


class CompiledBackend:
    """See `StainBackend`: the kernels that also travel in a registered model. Work it from as many threads as cores."""

    def __init__(self, reference: StainReference) -> None:
        normalize = normalizer(reference)
        self._normalize = normalize
        self.fit_group = normalize.fit_group
        self.apply = normalize.apply

    def batch(self, images: NDArray[np.uint8]) -> Batch:
        """See `StainBackend`."""
        return one_by_one(images, self._normalize)


class OneTile(Protocol):
    """Normalises one tile."""

    def __call__(self, image: NDArray[np.uint8], /) -> Stained:
        """Tile [H, W, 3] to tile and outcome."""
        ...


def one_by_one(images: NDArray[np.uint8], normalize: OneTile) -> Batch:
    """Normalise tiles [N, H, W, 3] one after the other into one new array."""
    painted = np.empty(images.shape, np.uint8)
    outcomes: list[StainOutcome] = []
    for row, image in enumerate(images):
        painted[row], outcome = normalize(image)
        outcomes.append(outcome)
    return painted, outcomes


def pick_backend(name: str) -> BackendName:
    """The backend that a setting means; `auto` is torch where it sees a GPU, else numba.

    Raises:
        SettingsError: there is no such backend.
    """
    if name == "auto":
        import torch

        return "torch" if torch.cuda.is_available() else "numba"
    if name not in ("numba", "torch", "staintools"):
        raise SettingsError(f"normalize.backend: {name!r} is not one of auto, numba, torch, staintools")
    return name  # type: ignore[return-value]  # just checked


def build(reference: StainReference, backend: str = "auto") -> StainBackend:
    """The backend of that name for a reference, with the reference's own precision."""
    picked = pick_backend(backend)
    if picked == "numba":
        return CompiledBackend(reference)
    if picked == "torch":
        from oncoshift.data.stain.torch_backend import TorchBackend

        return TorchBackend(reference)
    from oncoshift.data.stain.staintools_backend import StaintoolsBackend

    return StaintoolsBackend(reference)
