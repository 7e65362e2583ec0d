"""Metrics and calibration error agree with values computed by hand, and refuse invalid input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from oncoshift.errors import DataError
from oncoshift.evaluation.calibration import compute_reliability, expected_calibration_error, find_bins
from oncoshift.evaluation.metrics import compute_metrics

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1], dtype=np.int64)
PROBABILITIES = np.array([0.1, 0.2, 0.5, 0.9, 0.05, 0.3, 0.6, 0.7, 0.8, 1.0])
GROUPS = np.array(["a", "a", "b", "b", "c", "c", "d", "d", "e", "e"])


def test_metrics_of_a_worked_example() -> None:
    metrics = compute_metrics(LABELS, PROBABILITIES, GROUPS)
    assert (metrics.tn, metrics.fp, metrics.fn, metrics.tp) == (2, 2, 2, 4), "0.5 itself is called malignant"
    assert (metrics.tiles, metrics.groups, metrics.prevalence) == (10, 5, 0.6)
    assert metrics.accuracy == pytest.approx(0.6)
    assert metrics.sensitivity == pytest.approx(4 / 6)
    assert metrics.specificity == pytest.approx(2 / 4)
    assert metrics.balanced_accuracy == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert metrics.auroc == pytest.approx(roc_auc_score(LABELS, PROBABILITIES))
    assert metrics.brier == pytest.approx(brier_score_loss(LABELS, PROBABILITIES))


def test_the_threshold_moves_the_calls_and_not_the_auroc() -> None:
    strict = compute_metrics(LABELS, PROBABILITIES, GROUPS, threshold=0.95)
    assert (strict.tp, strict.fp) == (1, 0)
    assert strict.auroc == compute_metrics(LABELS, PROBABILITIES, GROUPS).auroc


@pytest.mark.parametrize(
    ("label", "undefined", "defined"), [(0, "sensitivity", "specificity"), (1, "specificity", "sensitivity")]
)
def test_a_metric_that_needs_an_absent_class_is_none(label: int, undefined: str, defined: str) -> None:
    metrics = compute_metrics(np.full(4, label), np.array([0.1, 0.2, 0.7, 0.8]), np.array(list("abcd")))
    values = metrics.as_dict()
    assert values[undefined] is None
    assert values["auroc"] is None
    assert values["balanced_accuracy"] is None
    assert values[defined] == pytest.approx(0.5)
    assert json.loads(json.dumps(values)) == values


def test_a_column_beside_a_row_is_refused() -> None:
    with pytest.raises(DataError, match=r"must all be \[N\].*\(10, 1\)"):
        compute_metrics(LABELS, PROBABILITIES[:, None], GROUPS)
    with pytest.raises(DataError, match="must all be"):
        compute_metrics(LABELS[:, None], PROBABILITIES[:, None], GROUPS[:, None])
    with pytest.raises(DataError, match="must all be"):
        compute_metrics(LABELS, PROBABILITIES, GROUPS[:-1])


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1])
def test_values_that_are_no_probabilities_are_named(wrong: float) -> None:
    probabilities = PROBABILITIES.copy()
    probabilities[3] = wrong
    with pytest.raises(DataError, match=r"probabilities\[3\] is "):
        compute_metrics(LABELS, probabilities, GROUPS)


def test_unknown_labels_and_no_tiles_are_refused() -> None:
    with pytest.raises(DataError, match=r"labels\[0\] is -1"):
        compute_metrics(LABELS - 1, PROBABILITIES, GROUPS)
    with pytest.raises(DataError, match="no tiles"):
        compute_metrics(LABELS[:0], PROBABILITIES[:0], GROUPS[:0])


def test_calibration_error_of_a_worked_example() -> None:
    # Two bins: {0.1, 0.3} with one malignant of two, {0.5, 0.7, 1.0} with two of three.
    labels, probabilities = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.3, 0.5, 0.7, 1.0])
    expected = 2 / 5 * abs(0.5 - 0.2) + 3 / 5 * abs(2 / 3 - 2.2 / 3)
    assert expected_calibration_error(labels, probabilities, bins=2) == pytest.approx(expected)


def test_calibration_error_is_zero_when_frequencies_match_and_does_not_cancel_between_classes() -> None:
    calibrated = np.repeat([0.25, 0.75], 4)
    assert expected_calibration_error(np.array([1, 0, 0, 0, 1, 1, 1, 0]), calibrated, bins=10) == pytest.approx(0)
    # Overestimating malignant and overestimating benign, each by 0.25, at the same confidence of
    # 0.75.
    assert expected_calibration_error(np.array([0, 0, 0, 0, 0, 1, 1, 0]), calibrated, bins=10) == pytest.approx(0.25)


def test_bins_hold_both_ends_and_empty_ones_have_no_mean() -> None:
    assert find_bins(np.array([0.0, 0.0999, 0.1, 0.95, 1.0]), 10).tolist() == [0, 0, 1, 9, 9]
    curve = compute_reliability(np.array([0, 1]), np.array([0.05, 0.95]), 10)
    assert curve.counts.tolist() == [1] + [0] * 8 + [1]
    assert np.isnan(curve.observed[1:9]).all()
    assert curve.error == pytest.approx(0.05)
