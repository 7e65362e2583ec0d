"""Copies of one original are found whatever their disguise, and different tiles are kept apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import faiss
import numpy as np
import pandas as pd
import pytest
from support.disguises import Disguise, disguised, random_disguise

from oncoshift.copies import Pair, find_pairs, join_groups
from oncoshift.errors import DataError
from oncoshift.phantom import render_phantom_tile
from oncoshift.serving.images import decode
from oncoshift.settings import PhantomSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ORGANS = ("lung", "colon", "breast", "kidney")


def phantom(side: int, groups: int, seed: int = 0) -> list[np.ndarray]:
    settings = PhantomSettings(tile_size=side, seed=seed)
    return [
        render_phantom_tile(settings, organ, label, group, number).image
        for organ in ORGANS
        for label in (0, 1)
        for group in range(groups)
        for number in range(2)
    ]


def pairs_of(tiles: Sequence[np.ndarray]) -> list[Pair]:
    return find_pairs(lambda position: tiles[position], len(tiles))


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return phantom(128, 3)


def real_tiles(shared: Path, organ: str, count: int) -> list[np.ndarray]:
    listed = pd.read_csv(shared / "data" / "tiles.csv")
    chosen = listed[listed["organ"] == organ]["path"].iloc[:: max(1, (listed["organ"] == organ).sum() // count)][:count]
    return [decode((shared / "data" / "tiles" / path).read_bytes()) for path in chosen]


@pytest.mark.parametrize(
    "how",
    [
        Disguise(turn=37),
        Disguise(turn=90),
        Disguise(mirror=True),
        Disguise(turn=200, mirror=True),
        Disguise(zoom=1.3),
        Disguise(crop=(0.1, 0.0, 0.0, 0.1)),
        Disguise(crop=(0.1, 0.02, 0.0, 0.05)),
        Disguise(density=(1.1, 0.9, 1.1)),
        Disguise(quality=50),
        random_disguise(1),
    ],
    ids=str,
)
def test_a_copy_is_found(originals: list[np.ndarray], how: Disguise) -> None:
    tiles = [*originals[::4], *(disguised(tile, how) for tile in originals[::4])]
    count = len(tiles) // 2
    assert [(pair.first, pair.second) for pair in pairs_of(tiles)] == [(i, i + count) for i in range(count)]


def test_different_tiles_of_a_slide_are_left_apart(originals: list[np.ndarray]) -> None:
    assert pairs_of(originals) == []


def test_tiles_of_64_pixels_with_regular_shapes_are_left_apart() -> None:
    assert pairs_of(phantom(64, 12, seed=1)) == []


def test_fields_that_only_overlap_are_left_apart() -> None:
    wide = render_phantom_tile(PhantomSettings(tile_size=192), "colon", 1, 0, 0).image
    assert pairs_of([wide[:128, :128], wide[64:, 64:]]) == []
    assert len(pairs_of([wide[:128, :128], wide[8:136, 8:136]])) == 1


def test_blank_tiles_are_nothings_copies(originals: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    noisy = [np.clip(rng.normal(242, 2, (128, 128, 3)), 0, 255).astype(np.uint8) for _ in range(4)]
    white = np.full((128, 128, 3), 255, np.uint8)
    one_pixel = np.full((1, 1, 3), 255, np.uint8)
    tiles = [white, white.copy(), one_pixel, one_pixel, *noisy, disguised(noisy[0], Disguise(quality=50)), originals[0]]
    assert pairs_of(tiles) == []


def test_equal_pixels_are_a_pair_of_score_1_and_do_not_hide_other_copies(originals: list[np.ndarray]) -> None:
    copy = disguised(originals[5], Disguise(turn=20, zoom=1.2))
    tiles = [*originals, *[originals[5]] * 20, copy]
    pairs = pairs_of(tiles)
    assert sum(pair.score == 1.0 for pair in pairs) == 20
    groups = join_groups([f"{position:03}" for position in range(len(tiles))], pairs)
    assert groups.count("005") == 22
    assert len(set(groups)) == len(originals)


def test_images_may_differ_in_size_and_shape(originals: list[np.ndarray]) -> None:
    small = np.ascontiguousarray(originals[0][::2, ::2])
    pairs = pairs_of([originals[0], originals[1], small, np.ascontiguousarray(originals[1][:, 4:120])])
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 2), (1, 3)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_tiles_are_no_special_case(originals: list[np.ndarray], count: int) -> None:
    assert pairs_of(originals[:count]) == []


def test_the_number_of_threads_changes_nothing(originals: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = [*originals, *(disguised(tile, random_disguise(i)) for i, tile in enumerate(originals))]
    threads = faiss.omp_get_max_threads()
    usual = pairs_of(tiles)
    try:
        faiss.omp_set_num_threads(1)
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        alone = pairs_of(tiles)
    finally:
        faiss.omp_set_num_threads(threads)
    assert alone == usual
    assert len(usual) > len(originals) // 2


def test_features_in_files_change_nothing_and_leave_nothing(
    originals: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiles = [*originals, *(disguised(tile, random_disguise(i)) for i, tile in enumerate(originals)), originals[0]]
    usual = pairs_of(tiles)
    assert len(usual) > len(originals) // 2
    seen: list[Path] = []

    def read(position: int) -> np.ndarray:
        seen.extend(tmp_path.glob("*/*"))
        return tiles[position]

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("oncoshift.copies.scratch.MANY", 0)
    monkeypatch.setattr("oncoshift.copies.index._PART", 20)
    assert find_pairs(read, len(tiles)) == usual
    assert seen
    assert list(tmp_path.iterdir()) == []


def test_files_are_gone_after_an_error(
    originals: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def read(position: int) -> np.ndarray:
        if position == 3:
            raise DataError("no such tile")
        return originals[position]

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("oncoshift.copies.scratch.MANY", 0)
    with pytest.raises(DataError, match="no such tile"):
        find_pairs(read, len(originals))
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_its_total(originals: list[np.ndarray]) -> None:
    seen: dict[str, list[tuple[int, int]]] = {"describing": [], "comparing": []}
    tiles = [*originals, disguised(originals[0], Disguise(turn=10))]
    find_pairs(lambda position: tiles[position], len(tiles), lambda phase: lambda *step: seen[phase].append(step))
    for steps in seen.values():
        assert steps == sorted(steps)
        assert steps[-1] == (len(tiles), len(tiles))


@pytest.mark.parametrize("organ", ["breast", "kidney"])
def test_disguised_real_tiles_are_found_and_others_left_apart(shared: Path, organ: str) -> None:
    originals = real_tiles(shared, organ, 60)
    tiles = [*originals, *(disguised(tile, random_disguise(i)) for i, tile in enumerate(originals))]
    pairs = pairs_of(tiles)
    found = {(pair.first, pair.second) for pair in pairs}
    expected = {(i, i + len(originals)) for i in range(len(originals))}
    assert found <= expected
    assert len(found) >= 0.95 * len(expected)


@pytest.mark.parametrize("organ", ["lung", pytest.param("colon", marks=pytest.mark.slow)])
def test_groups_of_real_copies(shared: Path, organ: str) -> None:
    listed = pd.read_csv(shared / "data" / "tiles.csv")
    listed = listed[listed["organ"] == organ]
    chosen = sorted(listed["group"].unique())[::2]
    listed = listed[listed["group"].isin(chosen)].reset_index(drop=True)
    files = [shared / "data" / "tiles" / path for path in listed["path"]]
    pairs = find_pairs(lambda position: decode(files[position].read_bytes()), len(files))
    found = np.array(join_groups([f"{position:05}" for position in range(len(files))], pairs))
    truth = listed["group"].to_numpy()
    upper = np.triu(np.ones((len(files), len(files)), bool), 1)
    predicted, true = (found[:, None] == found) & upper, (truth[:, None] == truth) & upper
    assert true.sum() > 500
    assert 2 * (predicted & true).sum() / (predicted.sum() + true.sum()) >= 0.98
