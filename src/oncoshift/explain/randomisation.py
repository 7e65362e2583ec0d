"""The parameter randomisation test (Adebayo 2018, arXiv 1810.03292).

A map that stays when all weights are replaced by random ones shows the tile, not the classifier.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import spearmanr

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn


def randomise_parameters(classifier: nn.Module, seed: int = 0) -> nn.Module:
    """Copy a classifier with every layer initialised anew; torch's random state is left alone."""
    made = copy.deepcopy(classifier)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in made.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return made


def compute_similarity(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute Spearman's rank correlation of signed maps, tile by tile.

    Args:
        one: [N, S, S].
        other: [N, S, S].

    Returns:
        float64 [N] in [-1, 1]; NaN where a map is constant.
    """
    return np.array([_correlate(a, b) for a, b in zip(one, other, strict=True)])


def _correlate(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    if not np.ptp(one) or not np.ptp(other):
        return float("nan")
    return float(spearmanr(one, other, axis=None).statistic)
