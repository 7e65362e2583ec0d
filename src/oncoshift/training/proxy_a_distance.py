"""Proxy A-distance (Ben-David 2007, 2010): the separability of two domains in feature space.

It is 2 (1 − 2 ε), with ε the held-out error of a linear classifier of source against target
features: 2 if the domains are separated without error, 0 if they cannot be distinguished. Aligned
features have a small distance, but so may features that are aligned wrongly or carry no
information. References: NeurIPS 19 (2007); doi 10.1007/s10994-009-5152-4 (2010).

The classifier is Fisher's discriminant, with a ridge equal to the features' mean within-domain
variance. So the directions in which features vary decide, as for a head of bounded weights; with
little or no ridge, hundreds of directions of almost no variance separate any two domains, aligned
or not. It has a closed form, so it is deterministic and takes milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_TILES = 1000
"""Most tiles of each domain that are used."""


def proxy_a_distance(source: NDArray[np.floating], target: NDArray[np.floating], seed: int = 0) -> float:
    """Compute the proxy A-distance of two sets of features, with two folds.

    Both domains get equal weight: as many tiles are drawn of each as the smaller one has, at most
    `MAX_TILES`. Folds are of tiles, not of groups, so tiles of one original in both folds raise the
    distance a little.

    Args:
        source: [N, D], N ≥ 2.
        target: [T, D], T ≥ 2.
        seed: of draw and folds.

    Returns:
        0 to 2. An error above one half (chance) counts as one half.

    Raises:
        ValueError: the arrays are not two-dimensional and equally wide, or one has fewer than two
            rows.
    """
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise ValueError(f"expected features [N, D] and [T, D], got shapes {source.shape} and {target.shape}")
    count = min(len(source), len(target), MAX_TILES)
    if count < 2:
        raise ValueError(f"two folds need two tiles of each domain, got {len(source)} and {len(target)}")
    rng = np.random.default_rng(seed)
    halves = [
        np.array_split(part[rng.permutation(len(part))[:count]].astype(np.float64), 2) for part in (source, target)
    ]
    wrong = 0
    for fitted, tested in ((0, 1), (1, 0)):
        direction, offset = _fit_discriminant(halves[0][fitted], halves[1][fitted])
        wrong += int((halves[0][tested] @ direction > offset).sum() + (halves[1][tested] @ direction <= offset).sum())
    return max(0.0, 2.0 * (1.0 - 2.0 * wrong / (2 * count)))


def _fit_discriminant(source: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Fit direction w [D] and offset b of the classifier "target if x · w > b"."""
    means = source.mean(axis=0), target.mean(axis=0)
    centred = np.concatenate([source - means[0], target - means[1]])
    within = centred.T @ centred / len(centred)
    ridge = within.trace() / len(within)
    if ridge == 0:  # no variance at all: only the means count
        ridge = 1.0
    direction = np.linalg.solve(within + ridge * np.eye(len(within)), means[1] - means[0])
    return direction, float((means[0] + means[1]) @ direction / 2)
