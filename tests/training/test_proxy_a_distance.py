"""The proxy A-distance is right on features whose distance is known."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from oncoshift.training.proxy_a_distance import MAX_TILES, proxy_a_distance


def normal(count: int, shift: float = 0.0, width: int = 16, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, width))
    x[:, 0] += shift
    return x


def test_domains_told_apart_without_error_are_at_two() -> None:
    assert proxy_a_distance(normal(200), normal(200, shift=20.0, seed=1)) == 2.0


def test_one_domain_is_near_zero() -> None:
    assert proxy_a_distance(normal(1000), normal(1000, seed=1)) < 0.15


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_shifted_normals_come_to_the_error_of_the_best_classifier(shift: float) -> None:
    # The best classifier cuts midway, with error Φ(−shift / 2); the ridge changes no direction of
    # unit covariance.
    error = NormalDist().cdf(-shift / 2)
    found = proxy_a_distance(normal(1000, width=4), normal(1000, shift, width=4, seed=1))
    assert found == pytest.approx(2 * (1 - 2 * error), abs=0.1)


def test_directions_of_almost_no_variance_do_not_decide() -> None:
    """They separate any two domains, even aligned ones: without a ridge the distance would be 2."""
    source, target = normal(500), normal(500, seed=1)
    source[:, 1] *= 1e-3
    target[:, 1] = target[:, 1] * 1e-3 + 0.02
    assert proxy_a_distance(source, target) < 0.3


def test_scale_and_place_of_the_features_do_not_matter() -> None:
    source, target = normal(300), normal(300, 1.5, seed=1)
    assert proxy_a_distance(1e-4 * source + 3, 1e-4 * target + 3) == proxy_a_distance(source, target)


def test_domains_count_alike_however_many_tiles_they_have() -> None:
    """Always predicting the larger domain would be right on nine of ten tiles."""
    assert proxy_a_distance(normal(900), normal(100, seed=1)) < 0.5
    assert proxy_a_distance(normal(100), normal(MAX_TILES * 3, 20.0, seed=1)) == 2.0


def test_it_is_the_same_every_time_and_the_seed_draws() -> None:
    source, target = normal(300), normal(200, 1.0, seed=1)
    assert proxy_a_distance(source, target, 3) == proxy_a_distance(source, target, 3)
    assert len({proxy_a_distance(source, target, seed) for seed in range(8)}) > 1


def test_features_without_any_variance_say_nothing() -> None:
    assert proxy_a_distance(np.zeros((10, 4)), np.zeros((10, 4))) == 0.0
    assert proxy_a_distance(np.zeros((10, 4)), np.ones((10, 4))) == 2.0


@pytest.mark.parametrize("bad", [np.zeros((4, 3)), np.zeros(4), np.zeros((1, 2))])
def test_what_cannot_be_compared_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"features \[N, D\]|two tiles of each domain"):
        proxy_a_distance(np.zeros((8, 2)), bad)
