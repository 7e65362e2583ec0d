"""A head that corrects a model by a handful of labels of the target.

The prior is a trained network of another method, `few_labels.prior`, which read none of them. With
its logit p of malignant, scaled over the target's tiles to the standard deviation `PRIOR_SPREAD`,
and its features z, the corrected logit is

    w · z + b + s · p,

a logistic regression on the labelled tiles with Gaussian priors: w around 0, b around 0, and s, the
trust in the prior, around 1. So without evidence the prior stays, and where labels contradict it,
it fades (s → 0) or turns around (s < 0). Both classes weigh the same, however many labels each has.

z are the units of the bottleneck, centred and scaled to a mean squared length of 1. In a network of
`anchored`, units are pairs that hold the two signs of one principal component, and z are the
components, times the square root of their covariance over the target's tiles: directions in which
these vary most count most. In other networks such directions are the prior's own, right or wrong,
and all count the same. Either way the result is linear in the units, so it is written into the
head, and the network is served as any other. The trunk and the bottleneck stay the prior's.

`benchmarks/labels.py` measures it. The weighting by the covariance and the widths of the Gaussians
were chosen on the benchmark's tiles, most of them in other divisions than those of docs/labels.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import expit

from oncoshift.methods.base import Batch, Method

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

PRIOR_SPREAD = 0.75
"""Standard deviation of the prior's logit over the target's tiles, once scaled."""

TRUST_VARIANCE = 1.0
"""Variance of s around 1."""

HEAD_VARIANCE = 30.0
"""Variance of w · z over the weights' prior, for a tile of the mean squared length."""

COMPONENTS_VARIANCE = 10.0
"""The same where z are components that are weighted by their covariance."""

BIAS_VARIANCE = 1.0
"""Variance of b."""


@dataclass(frozen=True)
class Correction:
    """A correction of a prior, linear in its logit and features.

    Attributes:
        weights: float64 [K], of the features.
        bias: added to the logit.
        scale: factor of the prior's logit, negative where labels turn it around.
    """

    weights: NDArray[np.float64]
    bias: float
    scale: float

    def predict(self, features: NDArray[np.floating], logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predict the probability of malignant, float64 [N], of features [N, K] and logits [N]."""
        return np.asarray(expit(features @ self.weights + self.bias + self.scale * logits))


class FewLabels(Method):
    """A network whose head `correct` changes."""

    def forward(self, batch: Batch, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Refuse: there is no loss to minimise."""
        raise NotImplementedError("few_labels has no loss; see `training.few_labels`")

    @torch.no_grad()
    def install(self, correction: Correction) -> None:
        """Write a correction of the bottleneck's units into the network's head.

        Both logits get half of the change each, with opposite signs.
        """
        head = self.net.classifier.head
        margin = head.weight[1] - head.weight[0], head.bias[1] - head.bias[0]
        weight = correction.scale * margin[0].double() + torch.from_numpy(correction.weights)
        bias = correction.scale * margin[1].double() + correction.bias
        for row, half in ((0, -0.5), (1, 0.5)):
            head.weight[row] = half * weight
            head.bias[row] = half * bias


def correct(
    features: NDArray[np.floating],
    logits: NDArray[np.float64],
    labelled: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    components: bool = False,
) -> Correction:
    """Compute the correction of a prior on one organ; see the module.

    Args:
        features: of all tiles of the target, [N, K]; those without a label scale the others.
        logits: the prior's logit of malignant, [N].
        labelled: positions of the labelled tiles, [L].
        labels: their labels, [L] in {0, 1}, of both classes.
        components: whether the features are principal components, to be weighted by their
            covariance.

    Raises:
        ValueError: shapes do not fit, or a class has no label.
    """
    if features.ndim != 2 or logits.shape != features.shape[:1] or labels.shape != labelled.shape:
        shapes = f"{features.shape}, {logits.shape}, {labelled.shape}, {labels.shape}"
        raise ValueError(f"expected features [N, K], logits [N], positions [L] and labels [L], got {shapes}")
    counts = np.bincount(labels, minlength=2)
    if len(counts) > 2 or not counts.all():
        raise ValueError(f"expected labels of both classes, 0 and 1, got {counts.tolist()} of each")
    z = features.astype(np.float64)
    centre = z.mean(axis=0)
    weighting = _weigh_directions(z - centre) if components else _scale(z - centre)
    spread = float(logits.std()) or 1.0
    w, b, s = _fit(
        (z[labelled] - centre) @ weighting,
        PRIOR_SPREAD * logits[labelled] / spread,
        labels,
        len(labels) / (2 * counts),
        COMPONENTS_VARIANCE if components else HEAD_VARIANCE,
    )
    weights = weighting @ w
    return Correction(weights, b - float(weights @ centre), s * PRIOR_SPREAD / spread)


def _scale(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the identity [K, K], scaled so that it gives centred z [N, K] a mean |z|² of 1."""
    length = float(np.sqrt((z**2).sum(axis=1).mean())) or 1.0
    return np.eye(z.shape[1]) / length


def _weigh_directions(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the square root of the covariance of centred z [N, K], scaled, [K, K]."""
    variance, directions = np.linalg.eigh(z.T @ z / len(z))
    variance = np.maximum(variance, 0)
    length = float(np.sqrt((variance**2).sum())) or 1.0  # of what is weighted: the mean of |z C½|² is the trace of C²
    return np.asarray((directions * (np.sqrt(variance) / length)) @ directions.T)


def _fit(
    z: NDArray[np.float64],
    p: NDArray[np.float64],
    labels: NDArray[np.int64],
    class_weights: NDArray[np.float64],
    variance: float,
) -> tuple[NDArray[np.float64], float, float]:
    """Minimise the penalised log loss; the problem is convex, and w lies in the span of z."""
    from scipy.optimize import minimize  # every training process imports this module, and few need it

    left, singular, right = np.linalg.svd(z, full_matrices=False)
    x, sign, weight = left * singular, 2.0 * labels - 1, class_weights[labels]

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w, (b, s) = values[:-2], values[-2:]
        margin = sign * (x @ w + b + s * p)
        pull = -sign * expit(-margin) * weight
        penalty = w @ w / variance + b**2 / BIAS_VARIANCE + (s - 1) ** 2 / TRUST_VARIANCE
        gradient = np.r_[x.T @ pull + w / variance, pull.sum() + b / BIAS_VARIANCE, pull @ p + (s - 1) / TRUST_VARIANCE]
        return float(weight @ np.logaddexp(0, -margin) + penalty / 2), gradient

    start = np.r_[np.zeros(x.shape[1] + 1), 1.0]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-8}).x
    return right.T @ found[:-2], float(found[-2]), float(found[-1])
