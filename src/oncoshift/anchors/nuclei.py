"""Nuclei of H&E tiles, and the share of tissue that they cover.

Malignant tissue of the organs measured here is more densely packed with nuclei, and its nuclei are
larger. The threshold follows the stain: one for all groups of an organ loses breast
(docs/studies.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from skimage.filters import threshold_otsu

from oncoshift.anchors.stains import find_white, separate_stains, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.settings.training import AnchorSettings

_SIDE = 224
"""Side in pixels of the tiles that the sizes below were chosen for; others scale them."""
_BLUR = 1.0
_OPENING = 3
_MIN_NUCLEUS_SHARE = 0.0003
"""Share of a tile's area below which an object is a speck: 15 pixels at 224 px, 2 at 64 px."""
_THRESHOLDS = (0.25, 1.2)
"""Bounds of the threshold: below, pale stroma would count, and above, pale nuclei would not."""
_EDGES = np.linspace(-1.0, 5.0, 601)
_LEVEL_TILES = 64
"""Tiles of a group, evenly spread, that decide its threshold."""


class NucleiLevels(NamedTuple):
    """What nuclei of a group are told by.

    Attributes:
        white: float64 [3], see `anchors.stains.find_white`.
        threshold: least haematoxylin of a nucleus, as optical density.
    """

    white: NDArray[np.float64]
    threshold: float


def measure_nuclei(tiles: NDArray[np.uint8], settings: AnchorSettings | None = None) -> NDArray[np.float64]:  # noqa: ARG001
    """Measure ln(nuclei ÷ tissue + .01) of the tiles of one group.

    Args:
        tiles: uint8 [N, S, S, 3].
        settings: not read; see `anchors.registry`.

    Returns:
        float64 [N]; ln .01 for a tile without tissue.
    """
    levels = find_levels(tiles)
    return np.log([compute_nuclear_share(tile, levels) + 0.01 for tile in tiles])


def compute_nuclear_share(tile: NDArray[np.uint8], levels: NucleiLevels) -> float:
    """Compute the share of a tile's tissue that is nuclei, 0 to 1; 0 without tissue."""
    nuclei, tissue = _find(tile, levels)
    return float(nuclei.sum() / max(int(tissue.sum()), 1))


def find_nuclei(tile: NDArray[np.uint8], levels: NucleiLevels | None = None) -> NDArray[np.bool_]:
    """Find the nuclei of an H&E tile, roughly: its objects rich in haematoxylin.

    These are pixels of tissue with haematoxylin above a threshold, without thin lines and specks.
    Holes stay, because a gland's ring of nuclei has one. A tile without tissue has no nuclei.

    Args:
        tile: uint8 [S, S, 3].
        levels: of the tile's group; None: those of the tile itself.

    Returns:
        bool [S, S].
    """
    return _find(tile, find_levels(tile[None]) if levels is None else levels)[0]


def find_levels(tiles: NDArray[np.uint8]) -> NucleiLevels:
    """Find white and threshold of one group: Otsu's, of haematoxylin over tissue, within bounds.

    Args:
        tiles: uint8 [N, S, S, 3].
    """
    white, some = find_white(tiles), spread(tiles, _LEVEL_TILES)
    counts = np.zeros(len(_EDGES) - 1, np.int64)
    for tile in some:
        haematoxylin, tissue = _blur_haematoxylin(tile, white)
        counts += np.histogram(haematoxylin[tissue], _EDGES)[0]
    low, high = _THRESHOLDS
    if np.count_nonzero(counts) < 2:  # no tissue, or one even surface
        return NucleiLevels(white, high)
    centres = (_EDGES[1:] + _EDGES[:-1]) / 2
    return NucleiLevels(white, float(np.clip(threshold_otsu(hist=(counts, centres)), low, high)))


def _find(tile: NDArray[np.uint8], levels: NucleiLevels) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the nuclei and the tissue of a tile, bool [S, S] each."""
    haematoxylin, tissue = _blur_haematoxylin(tile, levels.white)
    mask = (tissue & (haematoxylin > levels.threshold)).astype(np.uint8)
    opening = round(_OPENING * tile.shape[0] / _SIDE)
    if opening > 1:
        mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((opening, opening), np.uint8)), np.uint8)
    _, objects, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    kept = stats[:, cv2.CC_STAT_AREA] >= max(2, round(_MIN_NUCLEUS_SHARE * mask.size))
    kept[0] = False
    return np.asarray(kept[objects], np.bool_), tissue


def _blur_haematoxylin(
    tile: NDArray[np.uint8], white: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    stains = separate_stains(tile, white)
    blurred = cv2.GaussianBlur(stains.haematoxylin, (0, 0), _BLUR * tile.shape[0] / _SIDE)
    return np.asarray(blurred, np.float32), stains.tissue
