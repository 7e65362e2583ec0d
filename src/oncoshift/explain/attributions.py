"""Integrated Gradients: which pixels move a classifier towards malignant, and by how much."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from oncoshift.errors import DataError
from oncoshift.serving.classifier import normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import nn

    from oncoshift.data.tables import Images
    from oncoshift.explain.kept import KeptParts, Part
    from oncoshift.serving.classifier import Classifier

_MEAN_CHUNK = 256
"""Tiles of a memory-mapped pack held at once."""


@dataclass(frozen=True)
class Attributions:
    """Integrated Gradients of the margin f = logit(malignant) − logit(benign), in logits.

    The margin, not the predicted class's logit, is explained: a positive value means "towards
    malignant" on every tile, whichever class was called, and p(malignant) = sigmoid(f).

    Attributes:
        values: float32 [N, S, S], summed over the colour channels; positive towards malignant.
        margins: float64 [N], f of each tile.
        baseline_margin: f of the baseline.
        delta: float64 [N], what completeness lacks: Σ values − (f(tile) − f(baseline)).
        relative_delta: float64 [N], |delta| / |f(tile) − f(baseline)|; NaN where the two margins
            are equal.
    """

    values: NDArray[np.float32]
    margins: NDArray[np.float64]
    baseline_margin: float
    delta: NDArray[np.float64]
    relative_delta: NDArray[np.float64]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability of malignant, [N] in (0, 1)."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.margins)))


def integrated_gradients(
    classifier: Classifier,
    tiles: NDArray[np.uint8],
    *,
    steps: int,
    internal_batch_size: int,
    device: torch.device | str,
    baseline: NDArray[np.uint8] | NDArray[np.floating],
    kept: KeptParts | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Attributions:
    """Attribute each tile's margin to its pixels (Sundararajan 2017), by Captum.

    IG_i = (x_i − b_i) · ∫₀¹ ∂f(b + α (x − b)) / ∂x_i dα, by Gauss–Legendre quadrature. The path is
    taken on normalised tiles; normalisation is affine for each channel, so attributions are the
    same as on pixel values. The classifier runs in eval mode, because batch statistics break
    completeness, and gets its mode back after.

    Args:
        classifier: on `device`.
        tiles: uint8 [N, S, S, 3].
        steps: points of the quadrature.
        internal_batch_size: most tiles that pass the network at once, so memory depends on neither
            N nor `steps`.
        device: where the classifier lies.
        baseline: the image that stands for "nothing to see", [S, S, 3] in [0, 255]; usually
            `compute_mean_image`.
        kept: where parts that are done are kept, and found; for these arguments alone.
        on_progress: called with tiles done and tiles in all.

    Raises:
        DataError: shapes or types do not fit.
    """
    _check_tiles(tiles, baseline)
    start = normalise(torch.as_tensor(np.asarray(baseline, dtype=np.float32))[None].to(device))

    def margin(x: Tensor) -> Tensor:
        logits: Tensor = classifier(x)
        return logits[:, 1] - logits[:, 0]

    def attribute(first: int) -> Part:
        x = normalise(torch.from_numpy(np.ascontiguousarray(tiles[first : first + chunk])).to(device))
        attributed = method.attribute(x, start, n_steps=steps, internal_batch_size=internal_batch_size)
        with torch.no_grad():
            return attributed.sum(dim=1).float().cpu().numpy(), margin(x).double().cpu().numpy()

    # Captum raises the internal batch size to the number of inputs, so it gets few inputs at a
    # time.
    chunk = max(1, internal_batch_size // steps)
    parts: list[Part] = []
    with _evaluating(classifier):
        method = IntegratedGradients(margin)
        for first in range(0, len(tiles), chunk):
            parts.append(attribute(first) if kept is None else kept.get(first, partial(attribute, first)))
            if on_progress is not None:
                on_progress(min(first + chunk, len(tiles)), len(tiles))
        with torch.no_grad():
            baseline_margin = margin(start).item()
    values, margins = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return _complete(values, margins, baseline_margin)


def compute_mean_image(images: Images, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean of some tiles of a pack, the baseline of `integrated_gradients`.

    Args:
        images: uint8 [M, S, S, 3], may be a memory map; it is read a few tiles at a time.
        rows: [N], N ≥ 1, which tiles.

    Returns:
        float32 [S, S, 3] in [0, 255].

    Raises:
        DataError: there are no rows.
    """
    if len(rows) == 0:
        raise DataError("no tiles to take the mean of; give the rows of the training split")
    total = np.zeros(images.shape[1:], dtype=np.float64)
    for first in range(0, len(rows), _MEAN_CHUNK):
        total += images[rows[first : first + _MEAN_CHUNK]].sum(axis=0, dtype=np.int64)
    return (total / len(rows)).astype(np.float32)


def _check_tiles(tiles: NDArray[np.uint8], baseline: NDArray[np.uint8] | NDArray[np.floating]) -> None:
    if tiles.ndim != 4 or tiles.shape[3] != 3 or tiles.dtype != np.uint8 or len(tiles) == 0:
        raise DataError(f"tiles must be uint8 [N, S, S, 3] with N ≥ 1, got {tiles.dtype} {list(tiles.shape)}")
    if baseline.shape != tiles.shape[1:]:
        raise DataError(f"the baseline must be {list(tiles.shape[1:])} as the tiles are, got {list(baseline.shape)}")


def _complete(values: NDArray[np.float32], margins: NDArray[np.float64], baseline_margin: float) -> Attributions:
    """Bundle the values with how far they are from completeness."""
    gain = margins - baseline_margin
    delta = values.sum(axis=(1, 2), dtype=np.float64) - gain
    relative = np.divide(np.abs(delta), np.abs(gain), out=np.full_like(gain, np.nan), where=gain != 0)
    return Attributions(values, margins, baseline_margin, delta, relative)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set eval mode in the context, and restore each submodule's own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
