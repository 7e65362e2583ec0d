"""The rule that picks the reference tile."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_tiles import tissue

from oncoshift.data.stain import nearest_to_median, tile_statistics
from oncoshift.errors import DataError


def test_the_reference_is_the_tile_nearest_to_the_median() -> None:
    middle = tissue(0)
    darker, redder = (np.clip(middle * scale, 0, 255).astype(np.uint8) for scale in (0.4, np.array([1.0, 0.6, 0.8])))
    assert nearest_to_median([None, *map(tile_statistics, (redder, middle, darker))]) == 2
    assert nearest_to_median([(0.0,), (9.0,), (1.0,), (1.0,)]) == 2


def test_blank_tiles_cannot_be_the_reference() -> None:
    assert tile_statistics(np.full((32, 32, 3), 255, np.uint8)) is None
    with pytest.raises(DataError, match=r"normalize\.variants"):
        nearest_to_median([None, None])
