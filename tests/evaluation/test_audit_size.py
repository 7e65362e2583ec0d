"""The size of an audit set: exact intervals, and how many more groups narrow them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from oncoshift.evaluation.audit_size import ENOUGH_WIDTH, AuditSize, measure_audit


def measure(benign: int, malignant: int, wrong: int = 0) -> AuditSize:
    """Measure an audit set of three tiles a group, of which some malignant groups are wrong."""
    labels = np.repeat([0] * benign + [1] * malignant, 3).astype(np.int64)
    sides = np.repeat([0] * benign + [1] * (malignant - wrong) + [0] * wrong, 3)
    groups = np.repeat(np.arange(benign + malignant), 3).astype(str)
    return measure_audit(labels, np.where(sides == 1, 0.9, 0.1), groups, threshold=0.5, confidence=0.95)


def test_the_interval_is_the_mean_of_both_classes_exact_ones() -> None:
    found = measure(4, 6, wrong=2)
    exact = [binomtest(right, total).proportion_ci(0.95, "exact") for right, total in ((4, 4), (4, 6))]
    assert (found.groups, found.right) == ((4, 6), (4, 4))
    assert found.low == pytest.approx(np.mean([each.low for each in exact]))
    assert found.high == pytest.approx(np.mean([each.high for each in exact]))


def test_the_missing_groups_narrow_it_as_far_as_it_says() -> None:
    small = measure(3, 2)
    assert small.high - small.low > 2 * ENOUGH_WIDTH
    assert min(small.missing) > 0
    larger = measure(3 + small.missing[0], 2 + small.missing[1])
    assert larger.high - larger.low <= ENOUGH_WIDTH
    assert larger.missing == (0, 0) or sum(larger.missing) < sum(small.missing) / 2


def test_a_large_set_misses_nothing_and_says_only_its_width() -> None:
    assert measure(300, 300, wrong=60).missing == (0, 0)
    assert "more" not in str(measure(300, 300, wrong=60))


@pytest.mark.parametrize("counts", [(1, 0), (0, 3), (1, 1)])
def test_a_set_that_allows_no_bootstrap_still_has_a_width_and_a_remedy(counts: tuple[int, int]) -> None:
    found = measure(*counts)
    assert 0 <= found.low < found.high <= 1
    assert min(found.missing) > 0
    text = str(found)
    assert text.startswith(f"With {counts[0]} benign and {counts[1]} malignant groups the exact 95% interval")
    assert f"about {found.missing[0]} more benign and {found.missing[1]} more malignant groups" in text


def test_a_group_is_right_by_its_mean_probability() -> None:
    labels, groups = np.array([1, 1, 1, 0]), np.array(["a", "a", "a", "b"])
    found = measure_audit(labels, np.array([0.9, 0.9, 0.1, 0.2]), groups, threshold=0.5, confidence=0.9)
    assert found.right == (1, 1)
