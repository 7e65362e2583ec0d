"""Source accuracy, information maximisation and the rule agree with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from oncoshift.selection.information_maximisation import information_maximisation
from oncoshift.selection.oracle import oracle
from oncoshift.selection.rule import SourceFlooredScore
from oncoshift.selection.source_accuracy import source_accuracy


def test_source_accuracy_is_balanced() -> None:
    labels = np.array([0, 1, 1, 1, 1])
    assert source_accuracy(np.full(5, 0.9), labels) == 0.5
    assert source_accuracy(np.array([0.1, 0.9, 0.9, 0.9, 0.2]), labels) == pytest.approx((1 + 0.75) / 2)


def test_source_accuracy_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match=r"two arrays \[N\]"):
        source_accuracy(np.full((5, 1), 0.9), np.zeros(5, np.int64))


def test_the_oracle_is_balanced_accuracy_of_the_target() -> None:
    # 1 of 1 benign, 1 of 3 malignant
    assert oracle(np.array([0.2, 0.9, 0.4, 0.1]), np.array([0, 1, 1, 1])) == pytest.approx((1 + 1 / 3) / 2)


def test_information_maximisation_extremes() -> None:
    assert information_maximisation(np.array([0.0, 1.0, 0.0, 1.0])) == pytest.approx(1.0, abs=1e-6)
    assert information_maximisation(np.ones(4)) == pytest.approx(0.0, abs=1e-6)
    assert information_maximisation(np.full(4, 0.5)) == pytest.approx(0.0, abs=1e-6)
    # H(.5) − H(.9) with H(.9) = 0.4690 bits
    assert information_maximisation(np.array([0.1, 0.9])) == pytest.approx(1 - 0.46900, abs=1e-4)


def test_a_model_below_the_source_floor_ranks_under_every_model_above_it() -> None:
    rule = SourceFlooredScore(0.8)
    assert rule(0.79, 1.0) < rule(0.81, 0.0)
    assert rule(0.9, 0.3) < rule(0.85, 0.4)
    assert rule(0.5, 0.9) < rule(0.7, 0.1)


def test_the_rule_takes_a_validator_with_negative_scores() -> None:
    rule = SourceFlooredScore(0.8, lowest=-1.0)
    assert rule(0.79, 0.0) < rule(0.81, -1.0) < rule(0.81, -0.5)
    with pytest.raises(ValueError, match="least value"):
        SourceFlooredScore(0.8)(0.9, -0.5)
