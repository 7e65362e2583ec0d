"""Batches are a pure function of data, seed and epoch, and balanced on request."""

from __future__ import annotations

import numpy as np

from oncoshift.data.tables import SourceTiles
from oncoshift.training.sampling import cycle, draw_source_batches, make_epoch_generator


def lopsided() -> SourceTiles:
    labels = np.r_[np.zeros(5), np.ones(95), np.zeros(40), np.ones(40)].astype(np.int64)
    organs = np.r_[np.zeros(100), np.ones(80)].astype(np.int64)
    return SourceTiles(np.zeros((180, 8, 8, 3), np.uint8), np.arange(180), labels, organs, ("lung", "colon"))


def test_balanced_batches_hold_each_organ_and_label_evenly() -> None:
    tiles = lopsided()
    for batch in draw_source_batches(tiles, 10, 16, True, make_epoch_generator(0, 0)):
        cells = tiles.organs[batch] * 2 + tiles.labels[batch]
        assert np.bincount(cells).tolist() == [4, 4, 4, 4]


def test_unbalanced_epoch_is_one_pass() -> None:
    tiles = lopsided()
    plan = draw_source_batches(tiles, 9, 20, False, make_epoch_generator(0, 0))
    assert sorted(plan.ravel().tolist()) == list(range(180))


def test_same_seed_and_epoch_same_batches_and_others_differ() -> None:
    tiles = lopsided()
    first, again, next_epoch = (
        draw_source_batches(tiles, 4, 16, True, make_epoch_generator(3, epoch)) for epoch in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, next_epoch)


def test_cycle_passes_over_all_before_repeating() -> None:
    drawn = cycle(7, 20, make_epoch_generator(0, 0))
    assert sorted(drawn[:7]) == sorted(drawn[7:14]) == list(range(7))
