"""The reference tile is picked by a rule that is stable as tiles are added."""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny_tiles import tissue

from oncoshift.data.stain import compute_tile_statistics, pick_reference
from oncoshift.errors import DataError


def test_the_reference_is_near_the_median() -> None:
    middle = tissue(0)
    darker, redder = (np.clip(middle * scale, 0, 255).astype(np.uint8) for scale in (0.4, np.array([1.0, 0.6, 0.8])))
    assert pick_reference([None, *map(compute_tile_statistics, (redder, middle, darker))], list("dcba")) == 2
    assert pick_reference([(0.0,), (9.0,), (1.0,), (1.0,)], list("dcba")) == 3, "the first by hash wins a tie"


def test_of_typical_tiles_the_first_by_hash_is_taken() -> None:
    statistics = [(float(value),) for value in range(101)]
    digests = [f"{value:03}" for value in range(101)]
    assert pick_reference(statistics, digests) == 47, "of 47 to 52, which are the nearest twentieth"
    assert pick_reference(statistics, digests[::-1]) == 53
    order = np.random.default_rng(0).permutation(101)
    assert order[pick_reference([statistics[i] for i in order], [digests[i] for i in order])] == 47


def test_a_few_new_tiles_mostly_leave_the_reference() -> None:
    stayed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        statistics = [tuple(row) for row in rng.normal(0, 5, (1010, 6)).tolist()]
        digests = [rng.bytes(8).hex() for _ in statistics]
        stayed += pick_reference(statistics[:1000], digests[:1000]) == pick_reference(statistics, digests)
    assert stayed >= 36


def test_blank_tiles_cannot_be_the_reference() -> None:
    assert compute_tile_statistics(np.full((32, 32, 3), 255, np.uint8)) is None
    with pytest.raises(DataError, match=r"normalize\.variants"):
        pick_reference([None, None], ["a", "b"])
