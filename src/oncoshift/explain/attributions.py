"""Integrated Gradients of a set of tiles, part by part, with their baselines."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from oncoshift.errors import DataError
from oncoshift.serving.attributions import (
    Attribution,
    Convergence,
    integrate_gradients,
    make_baseline,
    prepare_classifier,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from oncoshift.data.tables import Images
    from oncoshift.explain.kept import KeptParts

Baseline = Literal["mean", "blurred", "white", "black"]

_MEAN_CHUNK = 256
"""Tiles of a memory-mapped pack held at once."""
_PART = 4
"""Tiles that are integrated together: enough to fill the network's batches, and little to lose."""


def attribute_tiles(
    classifier: nn.Module,
    tiles: NDArray[np.uint8],
    baseline: NDArray[np.floating] | Literal["blurred", "white", "black"],
    convergence: Convergence,
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
    kept: KeptParts | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Attribute each tile's margin to its pixels; see `serving.attributions`.

    The classifier runs as a copy in eval mode; it is not changed.

    Args:
        classifier: normalised tiles → logits [N, 2].
        tiles: uint8 [N, S, S, 3].
        baseline: the image that stands for "nothing to see", [S, S, 3] in [0, 255], usually
            `compute_mean_image`; or the name of one that is made of each tile.
        convergence: when to stop doubling the steps.
        batch_size: most points that pass the network at once, so memory depends on neither N nor
            the steps.
        device: where to compute.
        kept: where finished parts are kept, and found; for these arguments alone.
        on_progress: called with tiles done and tiles in all.

    Raises:
        DataError: shapes or types do not fit.
    """
    _check_tiles(tiles, baseline)
    prepared = prepare_classifier(classifier).to(device)

    def attribute(first: int) -> Attribution:
        part = torch.from_numpy(np.ascontiguousarray(tiles[first : first + _PART]))
        start = make_baseline(baseline, part) if isinstance(baseline, str) else torch.as_tensor(baseline)[None]
        return integrate_gradients(prepared, part, start, convergence, batch_size=batch_size)

    parts = []
    for first in range(0, len(tiles), _PART):
        parts.append(attribute(first) if kept is None else kept.get(first, partial(attribute, first)))
        if on_progress is not None:
            on_progress(min(first + _PART, len(tiles)), len(tiles))
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Attribution(*map(np.concatenate, columns))


def compute_mean_image(images: Images, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Compute the mean of some tiles of a pack, the baseline of `attribute_tiles`.

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


def _check_tiles(tiles: NDArray[np.uint8], baseline: NDArray[np.floating] | str) -> None:
    if tiles.ndim != 4 or tiles.shape[3] != 3 or tiles.dtype != np.uint8 or len(tiles) == 0:
        raise DataError(f"tiles must be uint8 [N, S, S, 3] with N ≥ 1, got {tiles.dtype} {list(tiles.shape)}")
    if not isinstance(baseline, str) and baseline.shape != tiles.shape[1:]:
        raise DataError(f"the baseline must be {list(tiles.shape[1:])} as the tiles are, got {list(baseline.shape)}")
