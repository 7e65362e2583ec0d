"""The probability that few labels give a floor, against simulation and known cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncoshift.evaluation.few_labels import LabelCounts, compute_probability_above, count_calls

counts = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda pair: (min(pair), max(pair)))


@pytest.mark.parametrize(
    ("right", "total"), [((0, 0), (0, 0)), ((3, 5), (3, 7)), ((1, 20), (4, 36)), ((10, 10), (10, 10))]
)
def test_it_is_the_probability_of_the_two_posteriors(right: tuple[int, int], total: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    drawn = sum(rng.beta(k + 0.5, n - k + 0.5, 400_000) for k, n in zip(right, total, strict=True)) / 2
    for floor in (0.5, 0.6, 0.7, 0.9):
        found = compute_probability_above(floor, LabelCounts(right, total))
        assert found == pytest.approx(float((drawn > floor).mean()), abs=0.003)


@given(benign=counts, malignant=counts, floor=st.floats(0.3, 0.95))
def test_a_further_right_call_raises_it_and_the_classes_are_alike(
    benign: tuple[int, int], malignant: tuple[int, int], floor: float
) -> None:
    base = LabelCounts((benign[0], malignant[0]), (benign[1], malignant[1]))
    better = LabelCounts((benign[0] + 1, malignant[0]), (benign[1] + 1, malignant[1]))
    swapped = LabelCounts((malignant[0], benign[0]), (malignant[1], benign[1]))
    found = compute_probability_above(floor, base)
    assert 0 <= found <= 1
    assert compute_probability_above(floor, better) >= found - 1e-6
    assert compute_probability_above(floor, swapped) == pytest.approx(found, abs=2e-4)


def test_without_labels_and_at_one_half_nothing_is_known() -> None:
    assert compute_probability_above(0.5, LabelCounts((0, 0), (0, 0))) == pytest.approx(0.5, abs=1e-3)


def test_many_right_calls_of_one_class_prove_little() -> None:
    assert compute_probability_above(0.7, LabelCounts((0, 200), (0, 200))) < 0.7
    assert compute_probability_above(0.7, LabelCounts((10, 200), (10, 200))) > 0.99


def test_calls_are_counted_by_class() -> None:
    labels, malignant = np.array([0, 0, 0, 1, 1]), np.array([False, False, True, True, True])
    found = count_calls(labels, malignant)
    assert (found.right, found.total) == ((2, 2), (3, 2))
    assert str(found) == "2 of 3 benign, 2 of 2 malignant"
