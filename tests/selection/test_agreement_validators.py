"""Validators that compare models on the target agree with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oncoshift.selection.consensus import find_consensus, kappa
from oncoshift.selection.ensv import ensemble_agreement
from oncoshift.selection.seeds_agreement import seeds_agreement

TRUTH = np.tile([0.1, 0.9], 50)


def flipped(probabilities: np.ndarray, count: int) -> np.ndarray:
    """Halve the predictions' distance from ½, and flip the first `count` of them."""
    weaker = 0.5 + (probabilities - 0.5) / 2
    return np.concatenate([1 - weaker[:count], weaker[count:]])


def test_ensemble_agreement_by_hand() -> None:
    # Means .6, .4: classes 1, 0. The first agrees on both, the second on one, the third on one.
    models = np.array([[0.9, 0.1], [0.6, 0.6], [0.3, 0.5]])
    assert ensemble_agreement(models).tolist() == [1.0, 0.5, 0.5]


def test_seeds_agreement_by_hand() -> None:
    # Pairs agree on 2/2, 1/2 and 1/2 tiles.
    assert seeds_agreement(np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.9]])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("validator", [ensemble_agreement, seeds_agreement, find_consensus])
def test_one_model_has_nothing_to_agree_with(validator):  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="at least two models"):
        validator(np.full((1, 4), 0.3))


def test_kappa_by_hand() -> None:
    one, other = np.array([0.9, 0.9, 0.9, 0.1]), np.array([0.9, 0.9, 0.1, 0.1])
    # Same on 3/4; by chance 3/4 · 1/2 + 1/4 · 1/2 = 1/2.
    assert kappa(one, other) == pytest.approx((0.75 - 0.5) / (1 - 0.5))
    assert kappa(TRUTH, 1 - TRUTH) == -1.0


def test_constant_predictors_agree_by_chance_alone() -> None:
    constant = np.full(100, 0.9)
    assert kappa(constant, constant) == 0.0
    assert kappa(constant, TRUTH) == 0.0


@given(arrays(np.float64, (2, 12), elements=st.floats(0, 1)))
def test_kappa_is_symmetric_and_bounded(models: np.ndarray) -> None:
    value = kappa(models[0], models[1])
    assert value == pytest.approx(kappa(models[1], models[0]))
    assert -1 - 1e-12 <= value <= 1 + 1e-12


def test_one_inverted_organ_does_not_break_the_consensus() -> None:
    found = find_consensus(np.stack([1 - TRUTH, TRUTH, flipped(TRUTH, 2)]))
    assert found.majority == (1, 2)
    assert found.dissenters == (0,)
    # The last differs on 2 of 100 even tiles: (.98 − .5) / .5.
    assert found.strength == pytest.approx(0.96)
    assert found.agreement_with(TRUTH) == 1.0
    assert found.agreement_with(1 - TRUTH) == -1.0


def test_two_organs_that_contradict_one_another_have_no_consensus() -> None:
    assert find_consensus(np.stack([TRUTH, 1 - TRUTH])).strength == -1.0


def test_of_four_organs_two_are_no_majority() -> None:
    found = find_consensus(np.stack([TRUTH, TRUTH, 1 - TRUTH, 1 - TRUTH]))
    assert found.strength == -1.0
    assert find_consensus(np.stack([TRUTH, TRUTH, 1 - TRUTH, TRUTH])).majority == (0, 1, 3)


def test_the_order_of_organs_does_not_matter() -> None:
    models = np.stack([flipped(TRUTH, 5), 1 - TRUTH, TRUTH])
    one, other = find_consensus(models), find_consensus(models[::-1])
    assert one.strength == other.strength
    np.testing.assert_allclose(one.probabilities, other.probabilities)
