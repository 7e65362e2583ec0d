"""Deep embedded validation agrees with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oncoshift.selection.dev import DomainFeatures, controlled_risk, deep_embedded_validation, density_ratio


def test_the_control_variate_by_hand() -> None:
    # L = 0, 3; Cov(L, w) = 1.5, Var(w) = 1, so η = −1.5 and the risk is 1.5 − 1.5 · 2 + 1.5.
    assert controlled_risk(np.array([0.0, 1.0]), np.array([1.0, 3.0])) == pytest.approx(0.0)
    assert controlled_risk(np.array([0.0, 1.0]), np.array([1.0, 1.0])) == pytest.approx(0.5)


def test_a_constant_loss_is_the_risk_whatever_the_weights() -> None:
    weights = np.random.default_rng(0).exponential(5, 100)
    assert controlled_risk(np.full(100, 0.7), weights) == pytest.approx(0.7)


def normal_domains(seed: int) -> DomainFeatures:
    """Draw source N(0, 1) and target N(1, 1), whose density ratio is exp(x − 1/2)."""
    rng = np.random.default_rng(seed)
    return DomainFeatures(rng.normal(0, 1, (8000, 1)), rng.normal(0, 1, (2000, 1)), rng.normal(1, 1, (4000, 1)))


def test_the_density_ratio_of_two_normal_distributions() -> None:
    domains = normal_domains(0)
    expected = domains.source_val[:, 0] - 0.5
    assert np.abs(np.log(density_ratio(domains)) - expected).mean() < 0.1


def test_errors_where_the_target_is_weigh_more() -> None:
    domains = normal_domains(1)
    right = domains.source_val[:, 0] > 0
    labels = np.ones(len(right), np.int64)
    good_near_target = deep_embedded_validation(np.where(right, 0.9, 0.4), labels, domains)
    good_far_from_target = deep_embedded_validation(np.where(right, 0.4, 0.9), labels, domains)
    # P(x > 0) is Φ(1) = .841 on the target, Φ(0) on the source.
    assert good_near_target == pytest.approx(0.841 * math.log(0.9) + 0.159 * math.log(0.4), abs=0.05)
    assert good_far_from_target < good_near_target


def test_features_of_other_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match="2000 source validation features for 5"):
        deep_embedded_validation(np.full(5, 0.5), np.ones(5, np.int64), normal_domains(0))
