"""Properties of tiles by which evaluation is sliced: stain strength and image quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.data.validation.stains import DENSITIES, stain_strengths
from oncoshift.serving.tissue import measure

if TYPE_CHECKING:
    from oncoshift.data.tables import EvaluationTiles


def measure_tiles(tiles: EvaluationTiles) -> pd.DataFrame:
    """Measure tiles as they are in the pack.

    Returns:
        Indexed by tile_id: haematoxylin and eosin, mean optical density of tissue; sharpness and
        tissue, the share of pixels with tissue, as `serving.tissue` measures them.
    """
    found = [measure(tiles.images[row]) for row in tiles.rows.tolist()]
    densities = np.array([[getattr(each, name) for name in DENSITIES] for each in found])
    haematoxylin, eosin, _ = stain_strengths(densities).T
    return pd.DataFrame(
        {
            "haematoxylin": haematoxylin,
            "eosin": eosin,
            "sharpness": [each.sharpness for each in found],
            "tissue": [each.tissue for each in found],
        },
        index=pd.Index(tiles.tile_ids, name="tile_id"),
    )
