"""Consensus of models adapted from each source organ alone: do they agree on the target?

Alignment can invert the target's classes, confidently and with every seed. Whether it does depends
on the source organ, so models from different organs mostly contradict one another where it
happened. Agreement is Cohen's kappa of the classes (Cohen 1960, doi 10.1177/001316446002000104): 1
for identical, 0 for chance, −1 for opposite predictions; constant predictors agree by chance alone
and get 0. A single organ may be inverted, so the result is that of the best majority: the most
tightly agreeing set of more than half of the models, and at least two.

It fails where a majority is wrong in the same way, which is likelier the less independent the
organs' data are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.binary import check_models, check_probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Consensus:
    """Agreement of models adapted from each source organ alone.

    Attributes:
        agreement: kappa of each pair, float64 [K, K].
        majority: indices of the models in the best majority, ascending.
        strength: least kappa within the majority, −1 to 1; higher is better.
        probabilities: the majority's mean probability of malignant, float64 [N].
        constant: indices of the models that put every tile into one class, ascending; they agree
            with none.
    """

    agreement: NDArray[np.float64]
    majority: tuple[int, ...]
    strength: float
    probabilities: NDArray[np.float64]
    constant: tuple[int, ...] = ()

    @property
    def dissenters(self) -> tuple[int, ...]:
        """Indices of the models outside the majority."""
        return tuple(k for k in range(len(self.agreement)) if k not in self.majority)

    def agreement_with(self, probabilities: NDArray[np.float64]) -> float:
        """Compute the kappa of a candidate's probabilities, [N], with the majority, −1 to 1."""
        return kappa(probabilities, self.probabilities)


def find_consensus(alone: NDArray[np.float64]) -> Consensus:
    """Find the consensus on the target.

    Args:
        alone: probabilities of malignant, [K, N], of K ≥ 2 models on the same target tiles, each
            adapted from a different source organ alone.

    Raises:
        ValueError: there are fewer than two models, or values are not probabilities.
    """
    p = check_models(alone)
    agreement = pairwise_kappa(p)
    strength, majority = find_majority(agreement)
    malignant = p > 0.5
    constant = tuple(np.flatnonzero(malignant.all(axis=1) | ~malignant.any(axis=1)).tolist())
    return Consensus(agreement, majority, strength, p[list(majority)].mean(axis=0), constant)


def find_majority(agreement: NDArray[np.float64]) -> tuple[float, tuple[int, ...]]:
    """Find the most tightly agreeing set of more than half of the models, and at least two.

    Args:
        agreement: kappa of each pair, [K, K] of K ≥ 2 models.

    Returns:
        The least kappa within the set, and the indices of its models, ascending.
    """
    count = len(agreement)
    majorities = combinations(range(count), max(2, count // 2 + 1))
    return max((_least_agreement(agreement, members), members) for members in majorities)


def pairwise_kappa(models: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute kappa of each pair of models, [K, K], from probabilities of malignant, [K, N]."""
    agreement = np.eye(len(models))
    for one, other in combinations(range(len(models)), 2):
        agreement[one, other] = agreement[other, one] = kappa(models[one], models[other])
    return agreement


def kappa(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Compute Cohen's kappa of the classes of two models at a threshold of 0.5.

    Args:
        one: probabilities of malignant, [N].
        other: the same of another model.

    Returns:
        −1 to 1; 0 if both are constant, since agreement is then that of chance.
    """
    first, second = check_probabilities(one) > 0.5, check_probabilities(other) > 0.5
    if first.shape != second.shape:
        raise ValueError(f"expected the same tiles, got {first.shape} and {second.shape}")
    same = np.mean(first == second)
    chance = first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean())
    return float((same - chance) / (1 - chance)) if chance < 1 else 0.0


def _least_agreement(agreement: NDArray[np.float64], members: tuple[int, ...]) -> float:
    return float(min(agreement[one, other] for one, other in combinations(members, 2)))
