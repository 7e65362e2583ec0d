"""Maps between tiles are recovered exactly, and agreement is judged by its worst region."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from oncoshift.copies.features import extract_features
from oncoshift.copies.matching import find_mutual_neighbours, fit_affine
from oncoshift.copies.registration import align
from oncoshift.copies.similarity import worst_correlation
from oncoshift.copies.verification import verify_pair
from oncoshift.phantom import render_phantom_tile
from oncoshift.settings import PhantomSettings

IDENTITY = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])


def texture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (64, 64)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.asarray(smooth / smooth.std() * 20, np.float32)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_an_affine_map_is_recovered_from_frames_of_which_half_are_wrong(mirror: float) -> None:
    rng = np.random.default_rng(0)
    turn, zoom = 0.7, 1.4
    linear = zoom * np.array([[np.cos(turn), -mirror * np.sin(turn)], [np.sin(turn), mirror * np.cos(turn)]])
    first = np.column_stack((rng.uniform(0, 128, (40, 2)), rng.uniform(3, 12, 40), rng.uniform(0, 6, 40)))
    second = np.column_stack((first[:, :2] @ linear.T + (5.0, -9.0), first[:, 2] * zoom, mirror * first[:, 3] + turn))
    second[20:] = np.column_stack((rng.uniform(0, 128, (20, 2)), rng.uniform(3, 12, 20), rng.uniform(0, 6, 20)))
    inliers, affine = fit_affine(first, second)
    assert 20 <= inliers <= 22
    assert affine.reshape(2, 3) == pytest.approx(np.column_stack((linear, (5.0, -9.0))), abs=0.2)


def test_neighbours_are_mutual() -> None:
    first = np.array([[0, 0], [100, 100], [101, 101]], np.uint8)
    second = np.array([[102, 102], [1, 0]], np.uint8)
    assert find_mutual_neighbours(first, second).tolist() == [[0, 1], [2, 0]]
    assert find_mutual_neighbours(first[:0], second).shape == (0, 2)


def test_alignment_finds_the_map_and_the_share_that_both_show() -> None:
    moving = texture(0)
    true = np.array([[0.8, 0.1, 4.0], [-0.1, 0.8, 9.0]])
    fixed = 0.5 * cv2.warpAffine(moving, true, (64, 64), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) + 7
    start = (true + np.array([[0.02, 0.0, -1.0], [0.0, -0.02, 1.0]])).ravel()
    score, share, found = align(moving, fixed.astype(np.float32), start)
    assert score > 0.999
    assert share == 1.0
    assert found.reshape(2, 3) == pytest.approx(true, abs=0.02)


def test_flat_or_barely_overlapping_thumbnails_score_minus_one() -> None:
    flat = np.zeros((64, 64), np.float32)
    assert align(flat, texture(0), IDENTITY)[0] == -1.0
    beside = np.array([1.0, 0.0, 60.5, 0.0, 1.0, 0.0])
    assert align(texture(0), texture(0), beside)[0] == -1.0
    assert worst_correlation(flat, flat, IDENTITY.reshape(2, 3)) == -1.0


def test_one_corner_that_differs_spoils_the_agreement() -> None:
    one, other = texture(0), texture(0)
    other[:26, :26] = texture(1)[:26, :26]
    whole = float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    assert whole > 0.75
    assert worst_correlation(one, one, IDENTITY.reshape(2, 3)) > 0.95
    assert worst_correlation(one, other, IDENTITY.reshape(2, 3)) < 0.5


def test_a_match_maps_the_first_tile_to_the_second() -> None:
    tile = render_phantom_tile(PhantomSettings(tile_size=128), "lung", 1, 0, 0).image
    cut = cv2.resize(np.ascontiguousarray(tile[12:, :116]), (128, 128))
    for first, second, expected in (
        (tile, cut, [[128 / 116, 0, 0], [0, 128 / 116, -12 / 116]]),
        (cut, tile, [[116 / 128, 0, 0], [0, 116 / 128, 12 / 128]]),
    ):
        one, other = extract_features(first), extract_features(second)
        match = verify_pair(
            (one.descriptors[: one.used], other.descriptors[: other.used]),
            (one.keypoints[: one.used], other.keypoints[: other.used]),
            (one.thumbnail, other.thumbnail),
        )
        assert match is not None
        assert match.affine == pytest.approx(np.array(expected), abs=0.01)
