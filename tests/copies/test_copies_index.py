"""The index finds true neighbours in memory and in files, and reports a full disk as an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oncoshift.copies.candidates import find_candidates
from oncoshift.copies.index import build_index, flatten_descriptors
from oncoshift.copies.scratch import Scratch
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def clustered(tiles: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make codes of tiles with 0 to 20 features each, around 40 cluster centres."""
    rng = np.random.default_rng(seed)
    used = rng.integers(0, 21, tiles)
    places = rng.integers(60, 190, (40, 32))
    descriptors = (places[rng.integers(0, 40, (tiles, 20))] + rng.integers(-25, 26, (tiles, 20, 32))).astype(np.uint8)
    descriptors[np.arange(20) >= used[:, None]] = 0
    return descriptors, used.astype(np.int64)


def distances(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    return ((one[:, None].astype(int) - others.astype(int)) ** 2).sum(axis=2)


@pytest.mark.parametrize("tiles", [3, 30, 120])
def test_a_small_index_is_exact(tiles: int) -> None:
    descriptors, used = clustered(tiles)
    features = flatten_descriptors(descriptors, used, 0, tiles)
    found = build_index(descriptors, used, Scratch(None)).search(features, 5)
    every = distances(features, features)
    reached = np.take_along_axis(every, found, axis=1)
    assert reached.tolist() == np.sort(every, axis=1)[:, :5].tolist()


def test_a_large_index_finds_nearly_all_neighbours_in_memory_and_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptors, used = clustered(2500)
    features = flatten_descriptors(descriptors, used, 0, len(used))
    found = build_index(descriptors, used, Scratch(None)).search(features[:300], 5)
    every = distances(features[:300], features)
    reached = np.take_along_axis(every, found, axis=1)
    assert np.mean(reached == np.sort(every, axis=1)[:, :5]) > 0.95
    monkeypatch.setattr("oncoshift.copies.index._PART", 700)
    in_files = build_index(descriptors, used, Scratch(tmp_path)).search(features[:300], 5)
    assert np.array_equal(in_files, found)
    assert len(list(tmp_path.iterdir())) == 4


def test_tiles_without_features_have_no_candidates() -> None:
    descriptors, used = clustered(60)
    used[:2] = 20
    descriptors[1] = descriptors[0] = np.random.default_rng(1).integers(0, 256, descriptors[0].shape)
    descriptors[5], used[5] = 0, 0
    pairs = find_candidates(descriptors, used, Scratch(None)).tolist()
    assert [0, 1] in pairs
    assert not any(5 in pair for pair in pairs)
    assert pairs == sorted(pairs)
    assert all(first < second for first, second in pairs)


def test_a_disk_without_room_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="TMPDIR"):
        Scratch(tmp_path).zeros((1 << 50,), np.uint8)
