"""The decision whether two tiles show the same field, by their features and pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.copies.features import SIDE, THUMBNAIL
from oncoshift.copies.matching import find_mutual_neighbours, fit_affine
from oncoshift.copies.registration import align
from oncoshift.copies.similarity import worst_correlation

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_INLIERS = 4
"""Features that must agree on one map: one more than determine it. Chance matches are refused by
the pixels."""

MIN_CORRELATION = 0.7
"""Correlation of the aligned thumbnails as a whole. Copies reach 0.8 and more, most different tiles
0.2 to 0.5."""

MIN_SCORE = 0.72
"""Correlation of the aligned thumbnails in their worst region. Of 4,658 pairs of LC25000 copies
that reach this test, 99.8 % have at least 0.74. Of 13,042 pairs of different, very regular phantom
tiles (seeds 0 to 5), one has 0.72 and the others at most 0.70."""

MIN_SHARE = 0.6
"""Share of the tile with the smaller field that the other tile must cover."""

MAX_OFFSET = 0.25
"""Distance between the tiles' centres, in widths of the tile with the larger field. Cropping by
10 % moves the centre by 0.05, cutting two squares from one 4:3 photograph by 0.17; fields that
merely overlap are further apart."""

_STRETCH = (0.3, 1.3)
"""Least and most pixels of the wider tile per pixel of the narrower tile, in any direction."""

_SQUEEZE = 2.0
"""Largest ratio of the stretches in two directions; rotating, cropping and scaling back gives up to
1.8."""


@dataclass(frozen=True)
class Match:
    """Two tiles that show the same field.

    Attributes:
        score: correlation of the aligned thumbnails in their worst region, in [MIN_SCORE, 1].
        inliers: number of features that agree on the map.
        affine: float64 [2, 3], from the first tile's coordinates to the second's; 0 to 1 across a
            tile.
    """

    score: float
    inliers: int
    affine: NDArray[np.float64]


def verify_pair(
    descriptors: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    keypoints: tuple[NDArray[np.float16], NDArray[np.float16]],
    thumbnails: tuple[NDArray[np.int8], NDArray[np.int8]],
) -> Match | None:
    """Decide from their features whether two tiles show the same field.

    Args:
        descriptors: uint8 [N, DESCRIPTOR_SIZE] and [M, DESCRIPTOR_SIZE], only those that are set.
        keypoints: float16 [N, 4] and [M, 4].
        thumbnails: int8 [THUMBNAIL, THUMBNAIL] each.

    Returns:
        The match, or None if the tiles do not show the same field.
    """
    matches = find_mutual_neighbours(descriptors[0], descriptors[1])
    if len(matches) < MIN_INLIERS:
        return None
    first = keypoints[0][matches[:, 0]].astype(np.float64)
    second = keypoints[1][matches[:, 1]].astype(np.float64)
    inliers, raw = fit_affine(first, second)
    if inliers < MIN_INLIERS:
        return None
    across = _rescale(raw, SIDE, 0.0, 1, 0.0)
    zoom = abs(np.linalg.det(across[:2, :2]))
    if not 1e-2 < zoom < 1e2:
        return None
    # The wider tile is sampled on the grid of the narrower one, so that all of the latter is
    # compared.
    fixed, moving, start = (1, 0, _invert(across)) if zoom > 1 else (0, 1, across)
    in_pixels = _rescale(start[:2].ravel(), 1, 0.0, THUMBNAIL, 0.5)
    seen_moving, seen_fixed = thumbnails[moving].astype(np.float32), thumbnails[fixed].astype(np.float32)
    correlation, share, refined = align(seen_moving, seen_fixed, in_pixels[:2].ravel())
    back = _rescale(refined, THUMBNAIL, 0.5, 1, 0.0)
    if correlation < MIN_CORRELATION or share < MIN_SHARE or not _is_plausible(back):
        return None
    score = worst_correlation(seen_moving, seen_fixed, refined.reshape(2, 3))
    if score < MIN_SCORE:
        return None
    affine = _invert(back) if fixed == 1 else back
    return Match(score=min(score, 1.0), inliers=inliers, affine=affine[:2])


def _invert(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.inv(affine).astype(np.float64)


def _rescale(
    affine: NDArray[np.float64], old: int, old_centre: float, new: int, new_centre: float
) -> NDArray[np.float64]:
    """Convert a map [3, 3] from tiles of `old` pixels per side to tiles of `new` pixels per side.

    A pixel's centre is at its index plus `centre`.
    """
    scale = new / old
    shift = scale * old_centre - new_centre
    change = np.array([[scale, 0.0, shift], [0.0, scale, shift], [0.0, 0.0, 1.0]])
    return np.asarray(change @ np.vstack((affine.reshape(2, 3), (0, 0, 1))) @ _invert(change))


def _is_plausible(affine: NDArray[np.float64]) -> bool:
    """Whether a map from the narrower to the wider tile can be that of copies."""
    most, least = np.linalg.svd(affine[:2, :2], compute_uv=False)
    offset = np.hypot(*(affine[:2] @ (0.5, 0.5, 1.0) - 0.5))
    fits = _STRETCH[0] <= least and most <= _STRETCH[1] and most <= _SQUEEZE * least
    return bool(fits and offset <= MAX_OFFSET)
