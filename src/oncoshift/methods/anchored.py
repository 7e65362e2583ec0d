"""A head for the target in closed form: self-training that starts from the anchor.

It reads the trunk's pooled features of the target's tiles and the anchor (`oncoshift.anchors`): no
label of the target, and nothing of the sources. The features are standardised within the organ,
clipped, and reduced to principal components. Then, in rounds, a growing part of the tiles with the
highest and of those with the lowest score are called malignant and benign, and a ridge regression
on them gives the next score; the first score is the anchor's. Otsu's threshold on a round's scores
says what share of the tiles is malignant, by which the next round divides its tiles. The last
threshold divides the classes.

The result is linear in the features, so it is written into the network's bottleneck and head: the
first K units of the bottleneck are the components, the next K their negatives (the ReLU keeps the
positive part of each), and the head adds them up. Evaluation, Integrated Gradients, export and
serving see the usual network. The trunk stays as it was loaded.

A rare class is still a danger: the first round takes as many tiles of each, and calls tiles of the
other class so. Rounds that have failed see classes of equal size, so `Solution.malignant_share` is
that of the first round where it is the more extreme one. It is a hint, and no guard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from scipy.special import expit

from oncoshift.methods.base import Batch, Method

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

FEWEST = 10
"""Tiles of an organ below which a head would be guessed."""

PARTS = tuple(np.linspace(0.40, 0.90, 6).tolist())
"""Part of each class's tiles that a round learns from, round by round."""

EXTREMES = (0.10, 0.90)
"""Least and greatest share of malignant tiles that a round assumes."""

CLIP = 6.0
"""Standard deviations beyond which a feature is clipped while the head is computed."""

PENALTY = 0.1
"""Penalty of the ridge regression, relative to the mean squared length of a tile's components."""

SHARPNESS = 4.0
"""Logits that malignant gains where the score grows by 1; called tiles are fitted to −1 and 1."""


@dataclass(frozen=True)
class Solution:
    """A head, linear in components of the trunk's pooled features.

    Attributes:
        projection: float64 [K, D], from features to components.
        offset: float64 [K], added to the projected features.
        weights: float64 [K], from components to the score.
        bias: added to the score, which is positive for malignant.
        malignant_share: estimated share of malignant tiles, 0 to 1, by Otsu's threshold on the
            scores of the first and of the last round: the one that is further from one half.
    """

    projection: NDArray[np.float64]
    offset: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: float
    malignant_share: float

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Predict the probability of malignant, float64 [N], of pooled features [N, D]."""
        score = (features @ self.projection.T + self.offset) @ self.weights + self.bias
        return np.asarray(expit(SHARPNESS * score))


class Anchored(Method):
    """A network whose bottleneck and head `solve` computes."""

    def forward(self, batch: Batch, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Refuse: there is no loss to minimise."""
        raise NotImplementedError("anchored has no loss; see `training.closed_form`")

    @property
    def components(self) -> int:
        """Most components that the bottleneck has room for: each takes two units."""
        return self.net.width // 2

    @torch.no_grad()
    def install(self, solution: Solution) -> None:
        """Write a solution into bottleneck and head of the network; see the module."""
        linear, head = cast("nn.Linear", self.net.classifier.bottleneck[0]), self.net.classifier.head
        count = len(solution.weights)
        for parameter in (linear.weight, linear.bias, head.weight, head.bias):
            parameter.zero_()
        for first, sign in ((0, 1.0), (count, -1.0)):
            linear.weight[first : first + count] = torch.from_numpy(sign * solution.projection)
            linear.bias[first : first + count] = torch.from_numpy(sign * solution.offset)
            for row, half in ((0, -0.5), (1, 0.5)):
                weights = torch.from_numpy(sign * half * SHARPNESS * solution.weights)
                head.weight[row, first : first + count] = weights
        head.bias.copy_(torch.tensor([-0.5, 0.5]) * SHARPNESS * solution.bias)


def solve(
    features: NDArray[np.floating], anchor: NDArray[np.float64], components: int, tiles: float = 1.0, seed: int = 0
) -> Solution:
    """Compute a head for the tiles of one organ; see the module.

    Args:
        features: pooled features of the trunk, [N, D].
        anchor: [N], higher for malignant tissue; constant, it leaves nothing to start from.
        components: most principal components.
        tiles: share of the tiles that are drawn, in (0, 1].
        seed: of that draw.

    Raises:
        ValueError: shapes do not fit, or there are fewer tiles than `FEWEST`.
    """
    # Every training process imports this module, and few need these, which take a second to import.
    from skimage.filters import threshold_otsu
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge

    if features.ndim != 2 or anchor.shape != features.shape[:1] or len(anchor) < FEWEST:
        shapes = f"{features.shape}, {anchor.shape}"
        raise ValueError(f"expected features [N, D] and an anchor [N], N ≥ {FEWEST}, got {shapes}")
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(anchor))[: max(FEWEST, round(tiles * len(anchor)))])
    x, score = features[drawn].astype(np.float64), anchor[drawn]
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-6 * max(float(scale.max()), 1e-12)] = np.inf  # a feature that does not vary says nothing
    reduced = PCA(min(components, len(x) - 1, x.shape[1]), svd_solver="randomized", random_state=seed)
    z = reduced.fit_transform(np.clip((x - centre) / scale, -CLIP, CLIP))
    ridge = Ridge(alpha=PENALTY * float((z**2).sum(axis=1).mean()))
    share, cut, shares = 0.5, 0.0, [0.5]
    for part in PARTS:
        assumed = np.clip(share, *EXTREMES)
        low, high = np.quantile(score, (part * (1 - assumed), 1 - part * assumed))
        benign, malignant = score <= low, score >= high
        called = benign | malignant
        score = ridge.fit(z[called], np.where(malignant, 1.0, -1.0)[called]).predict(z)
        if np.ptp(score) > 0:
            cut = float(threshold_otsu(score))
            share = float((score > cut).mean())
            shares.append(share)
    projection = reduced.components_ / scale
    offset = -projection @ centre - reduced.components_ @ reduced.mean_
    extreme = max(shares[1:2] + shares[-1:], key=lambda each: abs(each - 0.5))
    return Solution(projection, offset, ridge.coef_, float(ridge.intercept_) - cut, extreme)
