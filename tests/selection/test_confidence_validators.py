"""Validators that read one model's target predictions agree with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oncoshift.selection.atc import average_thresholded_confidence
from oncoshift.selection.binary import as_softmax
from oncoshift.selection.bnm import batch_nuclear_norm
from oncoshift.selection.entropy import negative_entropy
from oncoshift.selection.mixval import mixval
from oncoshift.selection.snd import soft_neighbourhood_density


def test_entropy_prefers_certain_predictions() -> None:
    assert negative_entropy(np.array([0.5, 0.5, 1.0, 0.0])) == pytest.approx(-0.5)
    # H(.9) = 0.46900 bits
    assert negative_entropy(np.array([0.1, 0.9])) == pytest.approx(-0.46900, abs=1e-4)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [([0.0, 1.0, 0.0, 1.0], 1.0), ([1.0, 1.0, 1.0, 1.0], math.sqrt(0.5)), ([0.5, 0.5, 0.5, 0.5], 0.5)],
)
def test_nuclear_norm_of_certain_even_constant_and_undecided_predictions(
    probabilities: list[float], expected: float
) -> None:
    assert batch_nuclear_norm(np.array(probabilities)) == pytest.approx(expected)


def test_nuclear_norm_is_numpys() -> None:
    p = np.random.default_rng(0).random(50)
    assert batch_nuclear_norm(p) == pytest.approx(np.linalg.norm(as_softmax(p), "nuc") / 10)


def test_neighbourhood_density_of_two_pairs() -> None:
    pairs = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    # Each row's other three weigh e, 1, 1 at τ = 1; lengths do not count.
    near, far = math.e / (math.e + 2), 1 / (math.e + 2)
    expected = -near * math.log(near) - 2 * far * math.log(far)
    assert soft_neighbourhood_density(pairs, temperature=1.0) == pytest.approx(expected)


def test_neighbourhood_density_is_greatest_for_one_cluster_and_whole_in_blocks() -> None:
    assert soft_neighbourhood_density(np.ones((4, 2))) == pytest.approx(math.log(3))
    # More rows than one block of the similarity matrix holds.
    assert soft_neighbourhood_density(np.ones((1300, 2))) == pytest.approx(math.log(1299))


def test_thresholded_confidence_by_hand() -> None:
    source, labels = np.array([0.9, 0.8, 0.6, 0.3]), np.array([1, 0, 1, 0])
    # One of four is wrong, so the threshold is the second least of .6, .7, .8, .9: of the target's
    # .95, .65, .75, .5 two reach it.
    assert average_thresholded_confidence(source, labels, np.array([0.95, 0.65, 0.25, 0.5])) == 0.5


def test_thresholded_confidence_of_models_that_are_never_and_always_right() -> None:
    source, labels = np.array([0.9, 0.2]), np.array([1, 0])
    assert average_thresholded_confidence(source, 1 - labels, np.array([0.99])) == 0.0
    assert average_thresholded_confidence(source, labels, np.array([0.99, 0.7])) == 0.5


def test_mixval_of_two_tight_clusters_and_a_boundary_between_them() -> None:
    inputs = np.repeat([-1.0, 1.0], 20)[:, None]
    assert mixval(inputs, lambda x: (x[:, 0] > 0).astype(np.float64)) == 1.0
    # Mixes of −1 with 1 are −0.1 and 0.1; this boundary is wrong on the former, half of the pairs
    # between the clusters.
    assert mixval(inputs, lambda x: (x[:, 0] > -0.2).astype(np.float64)) == pytest.approx((1 + 0.5) / 2)


def test_mixval_of_a_constant_predictor_is_one_half() -> None:
    assert mixval(np.arange(6.0)[:, None], lambda x: np.full(len(x), 0.9)) == 0.5


def test_mixval_refuses_a_mix_that_has_no_larger_part() -> None:
    with pytest.raises(ValueError, match=r"above 0\.5"):
        mixval(np.ones((4, 1)), lambda x: x[:, 0].astype(np.float64), mix=0.5)


@pytest.mark.parametrize("bad", [np.full((3, 1), 0.5), np.array([]), np.array([0.2, 1.2]), np.array([np.nan])])
@pytest.mark.parametrize("validator", [negative_entropy, batch_nuclear_norm])
def test_what_is_no_probability_is_refused(validator, bad):  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="probabilities"):
        validator(bad)
