"""Faithfulness: does the called class lose its probability where the map says it comes from?

Pixels are ranked by what speaks for the called class. Deletion and insertion (Petsiuk 2018, arXiv
1806.07421) replace the first pixels by those of a baseline, or bring them back into it. ROAD (Rong
2022, arXiv 2202.00449) replaces them by a noisy linear interpolation of their neighbours, so that
the shape of what is removed tells the network nothing. Each is also measured with pixels in random
order, since the figures of one network say nothing by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from oncoshift.serving.classifier import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

STEPS = 16
"""Equal steps of a deletion or an insertion."""
ROAD_PERCENTAGES = (10, 30, 50, 70, 90)
ROAD_NOISE = 0.01
"""Standard deviation of ROAD's noise, in normalised pixel values."""

_NEIGHBOURS = {(row, column): 1 / 12 if row and column else 1 / 6 for row in (-1, 0, 1) for column in (-1, 0, 1)}
del _NEIGHBOURS[0, 0]


@dataclass(frozen=True)
class Faithfulness:
    """Figures of N tiles, float64 [N] in [0, 1].

    Attributes:
        deletion: mean probability of the called class while pixels are deleted; low is good.
        insertion: the same while pixels are inserted; high is good.
        road: share of ROAD's percentages at which the called class stays; low is good.
    """

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    road: NDArray[np.float64]


class FaithfulnessTest:
    """A classifier and tiles, whose pixels are removed in one order or another.

    Args:
        classifier: of `serving.attributions.prepare_classifier`.
        tiles: uint8 [N, S, S, 3].
        baseline: what deletion leaves and insertion starts from, [S, S, 3] in [0, 255].
        called: int64 [N], the class that each tile is called.
    """

    def __init__(
        self,
        classifier: nn.Module,
        tiles: NDArray[np.uint8],
        baseline: NDArray[np.floating],
        called: NDArray[np.int64],
        batch_size: int = 16,
    ) -> None:
        self._classifier, self._called, self._batch_size = classifier, called, batch_size
        self._device = next((parameter.device for parameter in classifier.parameters()), torch.device("cpu"))
        self._tiles = normalise(torch.from_numpy(np.ascontiguousarray(tiles)))
        self._baseline = normalise(torch.from_numpy(np.asarray(baseline, np.float32))[None])[0]

    def run(self, ranks: NDArray[np.int64], seed: int = 0) -> Faithfulness:
        """Measure an order of pixels: ranks [N, S, S] from 0, the first to be removed."""
        return Faithfulness(
            self.compute_curves(ranks, insert=False).mean(axis=1),
            self.compute_curves(ranks, insert=True).mean(axis=1),
            self.compute_road(ranks, seed=seed).mean(axis=1),
        )

    def compute_curves(self, ranks: NDArray[np.int64], *, insert: bool) -> NDArray[np.float64]:
        """Compute the called class's probability after each of `STEPS` steps, [N, STEPS]."""
        pixels = ranks[0].size
        rows = []
        for number, tile in enumerate(self._tiles):
            counts = torch.tensor([-(-pixels * step // STEPS) for step in range(1, STEPS + 1)]).view(-1, 1, 1, 1)
            chosen = torch.from_numpy(ranks[number])[None, None] < counts
            first, second = (tile, self._baseline) if insert else (self._baseline, tile)
            rows.append(self._predict(torch.where(chosen, first, second))[:, self._called[number]])
        return np.stack(rows)

    def compute_road(self, ranks: NDArray[np.int64], *, noise: float = ROAD_NOISE, seed: int = 0) -> NDArray[np.bool_]:
        """Find whether the called class stays, [N, len(ROAD_PERCENTAGES)]."""
        rng = np.random.default_rng(seed)
        rows = []
        for number, tile in enumerate(self._tiles.numpy()):
            removed = [ranks[number] < int(ranks[number].size * share / 100) for share in ROAD_PERCENTAGES]
            filled = np.stack([impute(tile, mask, noise * rng.standard_normal(tile.shape)) for mask in removed])
            predicted = self._predict(torch.from_numpy(filled.astype(np.float32)))
            rows.append(predicted.argmax(axis=1) == self._called[number])
        return np.stack(rows)

    @torch.inference_mode()
    def _predict(self, x: Tensor) -> NDArray[np.float64]:
        """Predict probabilities [n, 2] of normalised tiles [n, 3, S, S]."""
        parts = [
            self._classifier(part.to(self._device, memory_format=torch.channels_last)).double().softmax(1).cpu()
            for part in x.split(self._batch_size)  # type: ignore[no-untyped-call]
        ]
        predicted: NDArray[np.float64] = torch.cat(parts).numpy()
        return predicted


def rank_pixels(values: NDArray[np.float32], called: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank pixels by what speaks for the called class, the strongest first.

    Args:
        values: maps [N, S, S], positive towards malignant.
        called: int64 [N].

    Returns:
        int64 [N, S, S], from 0.
    """
    evidence = np.where(called == 1, 1, -1)[:, None] * values.reshape(len(values), -1)
    ranks = np.empty(evidence.shape, np.int64)
    np.put_along_axis(ranks, np.argsort(-evidence, axis=1), np.arange(evidence.shape[1])[None], axis=1)
    return ranks.reshape(values.shape)


def rank_randomly(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.int64]:
    """Rank the pixels of N tiles [N, S, S] at random."""
    ranks = np.tile(np.arange(shape[1] * shape[2]), (shape[0], 1))
    return np.random.default_rng(seed).permuted(ranks, axis=1).reshape(shape)


def impute(
    pixels: NDArray[np.floating], removed: NDArray[np.bool_], noise: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Replace removed pixels by a weighted mean of their eight neighbours, plus noise.

    All are solved for at once, so that the interpolation is linear across a removed area.

    Args:
        pixels: [C, S, S].
        removed: bool [S, S]; at least one pixel is left.
        noise: [C, S, S], added to what is replaced.

    Returns:
        float64 [C, S, S].
    """
    filled = pixels.astype(np.float64)
    count = int(removed.sum())
    if count == 0:
        return filled
    number = np.full(removed.shape, -1)
    number[removed] = np.arange(count)
    at = np.argwhere(removed)
    total, known = np.zeros(count), np.zeros((count, len(pixels)))
    rows, columns, weights = [np.arange(count)], [np.arange(count)], []
    for offset, weight in _NEIGHBOURS.items():
        neighbour = at + offset
        inside = ((neighbour >= 0) & (neighbour < removed.shape)).all(axis=1)
        row, (y, x) = np.flatnonzero(inside), neighbour[inside].T
        total[row] += weight
        unknown = removed[y, x]
        known[row[~unknown]] += weight * filled[:, y[~unknown], x[~unknown]].T
        rows.append(row[unknown])
        columns.append(number[y[unknown], x[unknown]])
        weights.append(np.full(int(unknown.sum()), -weight))
    matrix = coo_array((np.concatenate([total, *weights]), (np.concatenate(rows), np.concatenate(columns))))
    filled[:, removed] = splu(matrix.tocsc()).solve(known).T + noise[:, removed]
    return filled
