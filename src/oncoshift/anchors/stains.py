"""Haematoxylin, eosin and optical density of tiles, relative to the white of their group."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from skimage.color import hed_from_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

TISSUE_DENSITY = 0.30
"""Sum of the channels' optical densities above which a pixel is tissue."""

_WHITE_PERCENTILE = 99.0
_WHITE_TILES = 64
"""Tiles of a group, evenly spread, whose pixels decide its white."""
_HAEMATOXYLIN, _EOSIN = hed_from_rgb[:, 0], hed_from_rgb[:, 1]


class Stains(NamedTuple):
    """The stains of one tile.

    Attributes:
        haematoxylin: float32 [S, S].
        eosin: float32 [S, S].
        density: float32 [S, S], the sum of the channels' optical densities.
        tissue: bool [S, S].
    """

    haematoxylin: NDArray[np.float32]
    eosin: NDArray[np.float32]
    density: NDArray[np.float32]
    tissue: NDArray[np.bool_]


def find_white(tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Find the white of a group: the 99th percentile of each channel, float64 [3], at least 1.

    Args:
        tiles: uint8 [N, S, S, 3].
    """
    some = spread(tiles, _WHITE_TILES)
    counts = np.stack([np.bincount(some[..., channel].ravel(), minlength=256) for channel in range(3)])
    shares = counts.cumsum(axis=1) / counts.sum(axis=1, keepdims=True)
    return np.asarray(np.maximum((shares < _WHITE_PERCENTILE / 100).sum(axis=1), 1), np.float64)


def separate_stains(tile: NDArray[np.uint8], white: NDArray[np.float64]) -> Stains:
    """Separate the stains of a tile (Ruifrok and Johnston 2001).

    Optical density is −ln(I / white), at least 0.

    Args:
        tile: uint8 [S, S, 3].
        white: of its group, see `find_white`.
    """
    levels = np.maximum(np.arange(256), 1.0)
    tables = np.maximum(-np.log(levels[:, None] / white), 0.0).astype(np.float32)
    planes = [cv2.LUT(np.ascontiguousarray(tile[..., channel]), tables[:, channel]) for channel in range(3)]
    haematoxylin, eosin = (_add(planes, weights) for weights in (_HAEMATOXYLIN, _EOSIN))
    density = _add(planes, np.ones(3))
    return Stains(haematoxylin, eosin, density, density > TISSUE_DENSITY)


def spread(tiles: NDArray[np.uint8], most: int) -> NDArray[np.uint8]:
    """Select at most so many tiles, evenly spread."""
    return tiles[:: -(-len(tiles) // most)]


def _add(planes: list[NDArray[np.float32]], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    red, green, blue = (plane * np.float32(weight) for plane, weight in zip(planes, weights, strict=True))
    return np.asarray(red + green + blue, np.float32)
