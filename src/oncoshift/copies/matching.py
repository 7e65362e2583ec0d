"""Matching the features of two tiles: the affine map on which most of them agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FAR, _NEAR = 8.0, 4.0
"""Tolerated distance of a feature, in pixels of SIDE: of a map guessed from one keypoint, and of
the map fitted to all inliers."""

_MAX_ZOOM = 2.5
"""Largest zoom between two copies: each may show as little as two thirds of the original's width,
and be squeezed as well."""

_ROUNDS = 3
_FEWEST = 4
"""Least number of matches: three points determine an affine map, the fourth is the first to test
it."""


@compiled
def find_mutual_neighbours(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find the descriptors [N, D] and [K, D] that are each other's nearest neighbours.

    Returns:
        Positions [M, 2] in both, in the order of the first.
    """
    nearest = np.full(len(first), -1)
    nearest_back = np.full(len(second), -1)
    far = np.int32(2**30)
    least = np.full(len(first), far, np.int32)
    least_back = np.full(len(second), far, np.int32)
    for i in range(len(first)):
        for j in range(len(second)):
            distance = np.int32(0)
            for k in range(first.shape[1]):
                step = np.int32(first[i, k]) - np.int32(second[j, k])
                distance += step * step
            if distance < least[i]:
                least[i] = distance
                nearest[i] = j
            if distance < least_back[j]:
                least_back[j] = distance
                nearest_back[j] = i
    matches = np.empty((len(first), 2), np.int64)
    size = 0
    for i in range(len(first)):
        if nearest[i] >= 0 and nearest_back[nearest[i]] == i:
            matches[size, 0] = i
            matches[size, 1] = nearest[i]
            size += 1
    return matches[:size]


@compiled
def fit_affine(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
    """Fit the affine map, mirrored or not, that takes most of the first keypoints to the second.

    A keypoint has a position, a size and an angle, so one match determines a map up to a mirror.
    Each match therefore gives two hypotheses, and nothing is drawn at random. The best hypothesis
    is fitted to its inliers three times.

    Args:
        first: [M, 4], x, y, size and angle of matched features.
        second: [M, 4], the same in the other tile.

    Returns:
        The number of inliers of the final map, and the map [6] (a, b, tx, c, d, ty) with
        x' = a·x + b·y + tx.
    """
    affine = _vote(first, second)
    for turn in range(_ROUNDS):
        agree = _find_inliers(first, second, affine, _FAR if turn == 0 else _NEAR * (1.0 + 0.5 / turn))
        if agree.sum() < _FEWEST:
            break
        affine = _fit_least_squares(first[agree], second[agree], affine)
    return int(_find_inliers(first, second, affine, _NEAR).sum()), affine


@compiled
def _vote(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    best = np.zeros(6)
    most = 0
    for match in range(len(first)):
        zoom = second[match, 2] / first[match, 2]
        if zoom > _MAX_ZOOM or zoom < 1.0 / _MAX_ZOOM:
            continue
        for mirror in (1.0, -1.0):
            turn = second[match, 3] - mirror * first[match, 3]
            cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
            affine = np.array([cosine, -mirror * sine, 0.0, sine, mirror * cosine, 0.0])
            affine[2] = second[match, 0] - affine[0] * first[match, 0] - affine[1] * first[match, 1]
            affine[5] = second[match, 1] - affine[3] * first[match, 0] - affine[4] * first[match, 1]
            votes = _find_inliers(first, second, affine, _FAR).sum()
            if votes > most:
                most = votes
                best = affine
    return best


@compiled
def _find_inliers(
    first: NDArray[np.float64], second: NDArray[np.float64], affine: NDArray[np.float64], tolerance: float
) -> NDArray[np.bool_]:
    agree = np.empty(len(first), np.bool_)
    for i in range(len(first)):
        x = affine[0] * first[i, 0] + affine[1] * first[i, 1] + affine[2] - second[i, 0]
        y = affine[3] * first[i, 0] + affine[4] * first[i, 1] + affine[5] - second[i, 1]
        agree[i] = x * x + y * y < tolerance * tolerance
    return agree


@compiled
def _fit_least_squares(
    first: NDArray[np.float64], second: NDArray[np.float64], fallback: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit the affine map by least squares; `fallback` where the points lie on a line."""
    design = np.ones((len(first), 3))
    design[:, :2] = first[:, :2]
    gram = design.T @ design
    # With less than 1 px² of variance across the points' line, the stretch is undetermined.
    if np.linalg.det(gram) < float(len(first)) ** 3:
        return fallback
    solved = np.linalg.solve(gram, design.T @ np.ascontiguousarray(second[:, :2]))
    return np.array([solved[0, 0], solved[1, 0], solved[2, 0], solved[0, 1], solved[1, 1], solved[2, 1]])
