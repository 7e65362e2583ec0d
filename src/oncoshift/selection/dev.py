"""Deep embedded validation, DEV (You 2019, ICML 97:7124): importance-weighted source loss.

A domain classifier on features gives each source validation tile the density ratio w = (N_source /
N_target) · P(target | f) / P(source | f). With ℓ the loss of a tile, L = w ℓ and η = −Cov(L, w) /
Var(w), the risk on the target is estimated by mean(L) + η mean(w) − η; the control variate η lowers
its variance since E[w] = 1. It assumes that a feature has the same class in both domains, which
does not hold where alignment inverts the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from oncoshift.selection.binary import TINY, check_labels, check_probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DomainFeatures:
    """Features of one model, by which the domain classifier separates the domains.

    Attributes:
        source_train: [S, D], of source tiles for the domain classifier.
        source_val: [N, D], of the source tiles that are weighted; none of them in `source_train`.
        target: [T, D], of unlabelled target tiles.
    """

    source_train: NDArray[np.floating]
    source_val: NDArray[np.floating]
    target: NDArray[np.floating]


def deep_embedded_validation(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], features: DomainFeatures
) -> float:
    """Compute the negative of DEV's risk, with cross-entropy as the loss.

    Args:
        probabilities: of malignant, [N], on source validation tiles.
        labels: 0 or 1, [N].
        features: of the same model.

    Returns:
        −risk in nats, mostly below 0 (the control variate can lift it above); higher is better.
    """
    p = check_probabilities(probabilities)
    truth = check_labels(labels, len(p))
    if len(features.source_val) != len(p):
        raise ValueError(f"{len(features.source_val)} source validation features for {len(p)} probabilities")
    losses = -np.log(np.clip(np.where(truth, p, 1 - p), TINY, 1))
    return -controlled_risk(losses, density_ratio(features))


def density_ratio(features: DomainFeatures) -> NDArray[np.float64]:
    """Estimate the weights w, float64 [N], by a logistic classifier on standardised features."""
    rows = np.concatenate([features.source_train, features.target])
    is_target = np.arange(len(rows)) >= len(features.source_train)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    classifier.fit(rows, is_target)
    log_odds = classifier.decision_function(features.source_val)
    prior = len(features.source_train) / len(features.target)
    return np.asarray(prior * np.exp(np.clip(log_odds, -30, 30)), np.float64)


def controlled_risk(losses: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Compute the weighted mean loss with the control variate, from losses and weights [N]."""
    if losses.shape != weights.shape or losses.ndim != 1:
        raise ValueError(f"expected losses and weights [N], got {losses.shape} and {weights.shape}")
    weighted = losses * weights
    spread = float(np.var(weights))
    if spread == 0:
        return float(weighted.mean())
    eta = -float(np.mean((weighted - weighted.mean()) * (weights - weights.mean()))) / spread
    return float(weighted.mean() + eta * weights.mean() - eta)
