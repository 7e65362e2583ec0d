"""Integrated Gradients that have converged: steps are doubled, tile by tile, until the map stands.

The margin f = logit(malignant) − logit(benign) is attributed to pixels (Sundararajan 2017):

    IG_i = (x_i − b_i) · ∫₀¹ ∂f(b + α (x − b)) / ∂x_i dα

by the trapezoidal rule, whose points nest: a doubled grid needs gradients at its new points alone.
Needs torch and NumPy, and of oncoshift only this package.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.transforms.functional import gaussian_blur

from oncoshift.serving.classifier import normalise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Baseline = Literal["blurred", "white", "black"]

BLUR = 1 / 8
"""Standard deviation of the baseline `blurred`, as a share of the tile's side; it erases nuclei."""


@dataclass(frozen=True)
class Convergence:
    """When the integral of a tile has converged.

    Attributes:
        steps: intervals of the first grid.
        max_steps: intervals beyond which no grid is doubled.
        tolerance: largest completeness delta, as a share of the change of the margin from baseline
            to tile.
        stability: least cosine between the map of the old points and the map of the new points.
    """

    steps: int = 16
    max_steps: int = 512
    tolerance: float = 0.05
    stability: float = 0.95

    def __post_init__(self) -> None:
        if self.steps < 1 or self.max_steps < self.steps:
            raise ValueError(f"steps {self.steps} must be at least 1, and max_steps {self.max_steps} no fewer")


@dataclass(frozen=True)
class Attribution:
    """Integrated Gradients of N tiles, in logits; positive values point towards malignant.

    Attributes:
        values: float32 [N, S, S], summed over the colour channels.
        margins: float64 [N], f of each tile; the probability of malignant is sigmoid(f).
        baseline_margins: float64 [N], f of each tile's baseline.
        steps: int64 [N], intervals of each tile's last grid.
        stability: float64 [N], see `Convergence`; NaN where a map is zero or no grid was doubled.
        converged: bool [N]; False where `max_steps` was reached first.
    """

    values: NDArray[np.float32]
    margins: NDArray[np.float64]
    baseline_margins: NDArray[np.float64]
    steps: NDArray[np.int64]
    stability: NDArray[np.float64]
    converged: NDArray[np.bool_]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability of malignant, float64 [N]."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.margins)))

    @property
    def delta(self) -> NDArray[np.float64]:
        """Error of completeness, Σ values − (f(tile) − f(baseline)), float64 [N]."""
        total: NDArray[np.float64] = self.values.sum(axis=(1, 2), dtype=np.float64)
        return total - (self.margins - self.baseline_margins)

    @property
    def relative_delta(self) -> NDArray[np.float64]:
        """|delta| / |f(tile) − f(baseline)|, float64 [N]; NaN where the two margins are equal."""
        change = np.abs(self.margins - self.baseline_margins)
        relative = np.full_like(change, np.nan)
        np.divide(np.abs(self.delta), change, out=relative, where=change != 0)
        return relative


def explain_tile(
    classifier: nn.Module,
    tile: NDArray[np.uint8],
    *,
    baseline: NDArray[np.floating] | Baseline = "blurred",
    convergence: Convergence | None = None,
    batch_size: int = 16,
) -> Attribution:
    """Attribute the margin of one tile to its pixels.

    Args:
        classifier: normalised tiles → logits [N, 2], such as a `TileClassifier`.
        tile: uint8 [S, S, 3].
        baseline: the image that stands for "nothing to see", [S, S, 3] in [0, 255], or the name of
            one that is made of the tile.
        convergence: when to stop doubling the steps.
        batch_size: points in one pass through the network.

    Returns:
        The attribution of N = 1 tile.

    Raises:
        ValueError: a shape does not fit.
    """
    tiles = torch.from_numpy(np.ascontiguousarray(tile))[None]
    start = make_baseline(baseline, tiles) if isinstance(baseline, str) else torch.as_tensor(baseline)[None]
    return integrate_gradients(
        prepare_classifier(classifier), tiles, start, convergence or Convergence(), batch_size=batch_size
    )


def make_baseline(kind: Baseline, tiles: Tensor) -> Tensor:
    """Make a baseline of each tile: uint8 [N, S, S, 3] → float [N, S, S, 3] in [0, 255]."""
    if kind == "blurred":
        side = tiles.shape[1]
        # The kernel may not be wider than reflection allows.
        kernel = 2 * min(round(3 * BLUR * side), side - 1) + 1
        blurred: Tensor = gaussian_blur(tiles.permute(0, 3, 1, 2).float(), [kernel, kernel], [BLUR * side, BLUR * side])
        return blurred.permute(0, 2, 3, 1)
    return torch.full(tiles.shape, 255.0 if kind == "white" else 0.0)


def prepare_classifier(classifier: nn.Module) -> nn.Module:
    """Copy a classifier for attribution: in eval mode, BatchNorm folded, channels last.

    Batch statistics would break completeness. Parameters require no gradient, so that only the
    gradient of the input is computed.
    """
    made = copy.deepcopy(classifier).eval().requires_grad_(False)
    for parent in list(made.modules()):
        for (name, first), (norm_name, second) in pairwise(list(parent.named_children())):
            # In a ResNet of either library, a BatchNorm is registered right after its convolution.
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(first, second))
                setattr(parent, norm_name, nn.Identity())
    return made.requires_grad_(False).to(memory_format=torch.channels_last)


def integrate_gradients(
    classifier: nn.Module, tiles: Tensor, baselines: Tensor, convergence: Convergence, *, batch_size: int = 16
) -> Attribution:
    """Attribute the margins of tiles to their pixels, in float32, doubling steps tile by tile.

    Args:
        classifier: of `prepare_classifier`, on the device that computes.
        tiles: uint8 [N, S, S, 3].
        baselines: [N, S, S, 3], or [1, S, S, 3] for all tiles, in [0, 255].
        convergence: when to stop.
        batch_size: points in one pass, so that memory depends on neither N nor the steps.

    Raises:
        ValueError: a shape does not fit.
    """
    if tiles.ndim != 4 or baselines.shape not in (tiles.shape, (1, *tiles.shape[1:])):
        raise ValueError(f"expected tiles and baselines [N, S, S, 3], got {list(tiles.shape)}, {list(baselines.shape)}")
    paths = _Paths(classifier, tiles, baselines, batch_size)
    count, steps = len(tiles), convergence.steps
    everything = torch.arange(count)
    ends = paths.sum_gradients(everything, [0.0, 1.0]) / 2
    mean = (ends + paths.sum_gradients(everything, [k / steps for k in range(1, steps)])) / steps
    taken = torch.full((count,), steps)
    stability = torch.full((count,), torch.nan, dtype=torch.float64)
    converged = torch.zeros(count, dtype=torch.bool)
    active = everything
    while steps * 2 <= convergence.max_steps and len(active):
        new = paths.sum_gradients(active, [(2 * k + 1) / (2 * steps) for k in range(steps)]) / steps
        stability[active] = paths.compare(active, mean[active], new)
        mean[active] = (mean[active] + new) / 2
        steps *= 2
        taken[active] = steps
        stands = ~(stability[active] < convergence.stability)
        converged[active] = stands & (paths.compute_deltas(active, mean[active]) <= convergence.tolerance)
        active = active[~converged[active]]
    return Attribution(
        paths.attribute(everything, mean).float().cpu().numpy(),
        paths.margins[:, 1].numpy(),
        paths.margins[:, 0].numpy(),
        taken.numpy(),
        stability.numpy(),
        converged.numpy(),
    )


class _Paths:
    """The straight paths from baselines to tiles, and sums of the margin's gradients along them."""

    def __init__(self, classifier: nn.Module, tiles: Tensor, baselines: Tensor, batch_size: int) -> None:
        self._classifier, self._batch_size = classifier, batch_size
        device = next((parameter.device for parameter in classifier.parameters()), torch.device("cpu"))
        layout = torch.channels_last
        self._start = normalise(baselines.to(device)).expand(len(tiles), -1, -1, -1).contiguous(memory_format=layout)
        self._way = (normalise(tiles.to(device)) - self._start).contiguous(memory_format=layout)
        self.margins = torch.empty(len(tiles), 2, dtype=torch.float64)
        """f of baselines and tiles, [N, 2], once their gradients were asked for."""

    def sum_gradients(self, rows: Tensor, shares: list[float]) -> Tensor:
        """Sum each tile's gradients at some shares of the way, [len(rows), 3, S, S]."""
        total = torch.zeros_like(self._way[rows])
        for position, share in self._batches(len(rows), shares):
            row = rows[position]
            way = self._way[row]
            points = torch.addcmul(self._start[row], way, share.view(-1, 1, 1, 1).to(way)).requires_grad_()
            with torch.enable_grad():
                logits = self._classifier(points)
                margins = logits[:, 1] - logits[:, 0]
                (gradients,) = torch.autograd.grad(margins.sum(), points)
            total.index_add_(0, position.to(total.device), gradients)
            for end in (0, 1):
                here = share == end
                self.margins[row[here], end] = margins.detach().double().cpu()[here]
        return total

    def _batches(self, count: int, shares: list[float]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield positions among the tiles, and shares of the way, `batch_size` at a time."""
        position = torch.arange(count).repeat_interleave(len(shares))
        share = torch.tensor(shares, dtype=torch.float64).repeat(count)
        for first in range(0, len(share), self._batch_size):
            batch = slice(first, first + self._batch_size)
            yield position[batch], share[batch]

    def attribute(self, rows: Tensor, mean: Tensor) -> Tensor:
        """Compute the map, [len(rows), S, S], of mean gradients along the paths."""
        return (self._way[rows] * mean).sum(dim=1)

    def compare(self, rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Compute the cosine of two maps, float64 [len(rows)]; NaN for a map of zeros."""
        a, b = (self.attribute(rows, mean).flatten(1).double() for mean in (one, other))
        cosine: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
        return cosine.cpu()

    def compute_deltas(self, rows: Tensor, mean: Tensor) -> Tensor:
        """Compute |completeness delta| as a share of the margin's change, float64 [len(rows)]."""
        change = self.margins[rows, 1] - self.margins[rows, 0]
        delta = self.attribute(rows, mean).sum(dim=(1, 2), dtype=torch.float64).cpu() - change
        return torch.where(delta == 0, 0.0, delta.abs() / change.abs())
