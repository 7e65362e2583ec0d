"""Plain, interpretable measures of tiles, for the audit of shortcuts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd

from oncoshift.anchors.nuclei import compute_nuclear_share, find_levels
from oncoshift.anchors.stains import separate_stains

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.anchors.nuclei import NucleiLevels

MEASURES = {
    "nuclei ÷ tissue": "share of tissue that is nuclei",
    "haematoxylin ÷ stain": "haematoxylin over haematoxylin and eosin, in tissue",
    "white": "share of the tile that is no tissue",
    "saturation": "mean saturation of the colour",
    "grey entropy": "entropy of the grey levels",
}
"""The measures by name, with what they are; a column each of `measure_tiles`."""


def measure_group(tiles: NDArray[np.uint8]) -> pd.DataFrame:
    """Measure the tiles of one group.

    Args:
        tiles: uint8 [N, S, S, 3].

    Returns:
        One row a tile, one column for each of `MEASURES`.
    """
    levels = find_levels(tiles)
    return pd.DataFrame([_measure(tile, levels) for tile in tiles], columns=list(MEASURES))


def _measure(tile: NDArray[np.uint8], levels: NucleiLevels) -> tuple[float, ...]:
    stains = separate_stains(tile, levels.white)
    haematoxylin, eosin = (
        float(np.maximum(part[stains.tissue], 0).sum()) for part in (stains.haematoxylin, stains.eosin)
    )
    grey = np.bincount(cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY).ravel(), minlength=256) / tile[..., 0].size
    seen = grey[grey > 0]
    return (
        compute_nuclear_share(tile, levels),
        haematoxylin / max(haematoxylin + eosin, 1e-9),
        1.0 - float(stains.tissue.mean()),
        float(cv2.cvtColor(tile, cv2.COLOR_RGB2HSV)[..., 1].mean()) / 255,
        float(-(seen * np.log2(seen)).sum()),
    )
