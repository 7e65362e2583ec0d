"""Bootstrap intervals over groups and seeds cover the truth as often as they claim."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
)

from oncoshift.errors import DataError
from oncoshift.evaluation.intervals import bootstrap_differences, bootstrap_metrics, bootstrap_ratio
from oncoshift.evaluation.metrics import compute_metrics
from oncoshift.evaluation.resampling import TooFewGroupsError, resample_groups
from oncoshift.evaluation.weighted import METRIC_NAMES, compute_weighted_metrics

Tiles = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.str_]]


def make_tiles(
    tiles: int = 240, groups: int = 30, seeds: int = 3, gain: float = 0.2, group_noise: float = 0.1, seed: int = 0
) -> Tiles:
    """Make labels [N], probabilities [K, N] with ties, and groups [N].

    A group has one class, and the errors of its tiles are correlated.
    """
    rng = np.random.default_rng(seed)
    index = np.arange(tiles) % groups
    labels = (index % 2).astype(np.int64)
    scores = 0.5 + gain * (labels - 0.5) + rng.normal(0, group_noise, groups)[index]
    probabilities = np.clip(scores + rng.normal(0, 0.1, (seeds, tiles)), 0, 1).round(2)
    return labels, probabilities, np.array([f"g{number:03d}" for number in index])


@pytest.mark.parametrize("decimals", [1, 12], ids=["ties", "no ties"])
def test_weighted_metrics_equal_those_of_sklearn(decimals: int) -> None:
    rng = np.random.default_rng(1)
    for tiles in (5, 40, 150):
        labels = np.r_[0, 1, rng.integers(0, 2, tiles - 2)]
        probabilities = rng.random((2, tiles)).round(decimals)
        weights = rng.integers(0, 4, (tiles, 3)).astype(np.float64)
        weights[:2] += 1  # so that both classes have weight
        thresholds = np.array([0.5, 0.3])
        values = compute_weighted_metrics(METRIC_NAMES, labels, probabilities, weights, thresholds=thresholds, bins=10)
        for k, row in enumerate(probabilities):
            called = (row >= thresholds[k]).astype(int)
            for r, weight in enumerate(weights.T):
                expected = {
                    "accuracy": accuracy_score(labels, called, sample_weight=weight),
                    "balanced_accuracy": balanced_accuracy_score(labels, called, sample_weight=weight),
                    "sensitivity": recall_score(labels, called, sample_weight=weight),
                    "specificity": recall_score(labels, called, pos_label=0, sample_weight=weight),
                    "f1": f1_score(labels, called, sample_weight=weight),
                    "mcc": matthews_corrcoef(labels, called, sample_weight=weight),
                    "auroc": roc_auc_score(labels, row, sample_weight=weight),
                    "auprc": average_precision_score(labels, row, sample_weight=weight),
                    "brier": brier_score_loss(labels, row, sample_weight=weight),
                }
                assert {name: values[name][k, r] for name in expected} == pytest.approx(expected, rel=0, abs=1e-12)
                assert set(METRIC_NAMES) - set(expected) == {"ece"}, "which scikit-learn does not have"


def test_a_constant_prediction_has_no_correlation_and_no_weight_gives_no_value() -> None:
    labels, probabilities = np.array([0, 1, 1]), np.array([[0.9, 0.9, 0.9]])
    weights = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    values = compute_weighted_metrics(METRIC_NAMES, labels, probabilities, weights, thresholds=np.array([0.5]), bins=10)
    assert values["mcc"][0, 0] == 0
    assert values["auroc"][0, 0] == 0.5
    undefined = {name for name in METRIC_NAMES if np.isnan(values[name][0, 1])}
    assert undefined == {"balanced_accuracy", "auroc", "specificity", "mcc"}, "without weight on a benign tile"


def test_weights_stand_for_repeated_tiles() -> None:
    labels, probabilities, groups = make_tiles(tiles=90, seeds=1)
    weights = np.random.default_rng(2).integers(0, 3, 90)
    repeated = np.repeat(np.arange(90), weights)
    plain = compute_metrics(labels[repeated], probabilities[0, repeated], groups[repeated]).as_dict()
    values = compute_weighted_metrics(
        METRIC_NAMES, labels, probabilities, weights[:, None].astype(float), thresholds=np.array([0.5]), bins=10
    )
    for name in METRIC_NAMES:
        assert values[name][0, 0] == pytest.approx(plain[name]), name


def test_points_are_means_over_seeds_and_lie_between_the_ends() -> None:
    labels, probabilities, groups = make_tiles()
    intervals = bootstrap_metrics(labels, probabilities, groups, resamples=300)
    every = [compute_metrics(labels, row, groups).as_dict() for row in probabilities]
    assert tuple(intervals) == METRIC_NAMES
    for name, interval in intervals.items():
        assert interval.point == pytest.approx(np.mean([metrics[name] for metrics in every])), name
        assert interval.low < interval.high <= 1
        assert (interval.confidence, interval.resamples) == (0.95, 300)
        if name != "ece":
            assert interval.low < interval.point < interval.high


def test_the_seed_and_the_tiles_decide_the_interval_and_their_order_does_not() -> None:
    labels, probabilities, groups = make_tiles()
    first = bootstrap_metrics(labels, probabilities, groups, resamples=200, seed=4)
    assert bootstrap_metrics(labels, probabilities, groups, resamples=200, seed=4) == first
    assert bootstrap_metrics(labels, probabilities, groups, resamples=200, seed=5) != first
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = bootstrap_metrics(labels[order], probabilities[:, order], groups[order], resamples=200, seed=4)
    for name in METRIC_NAMES:
        assert shuffled[name].as_dict() == pytest.approx(first[name].as_dict()), name


def test_one_model_may_be_a_row_or_a_matrix_of_one_row() -> None:
    labels, probabilities, groups = make_tiles(seeds=1)
    assert bootstrap_metrics(labels, probabilities[0], groups, resamples=100) == bootstrap_metrics(
        labels, probabilities, groups, resamples=100
    )


def test_groups_that_err_together_widen_the_interval() -> None:
    labels, probabilities, groups = make_tiles(tiles=600, groups=20, seeds=1, group_noise=0.3)
    by_group = bootstrap_metrics(labels, probabilities, groups, names=("auroc",))["auroc"]
    as_if_independent = np.arange(600).astype(str)
    by_tile = bootstrap_metrics(labels, probabilities, as_if_independent, names=("auroc",))["auroc"]
    assert by_group.high - by_group.low > 1.5 * (by_tile.high - by_tile.low)


def test_seeds_that_disagree_widen_the_interval() -> None:
    labels, probabilities, groups = make_tiles(seeds=1)
    same = np.repeat(probabilities, 3, axis=0)
    one_inverted = same.copy()
    one_inverted[2] = 1 - same[2]
    narrow = bootstrap_metrics(labels, same, groups, names=("auroc",))["auroc"]
    wide = bootstrap_metrics(labels, one_inverted, groups, names=("auroc",))["auroc"]
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sides = rng.random(60) < 0.7  # each group is right as a whole, with probability 0.7
        labels = np.repeat(np.arange(60) % 2, 4)
        right = np.repeat(sides, 4)
        probabilities = np.where(right == (labels == 1), 0.9, 0.1)
        groups = np.repeat(np.arange(60).astype(str), 4)
        interval = bootstrap_metrics(labels, probabilities, groups, names=("accuracy",), confidence=0.9)["accuracy"]
        covered += interval.low <= 0.7 <= interval.high
    assert 46 <= covered <= 60, "nominal 54 of 60"


@pytest.mark.parametrize("mixed", [False, True])
def test_every_resample_has_both_classes_and_as_many_groups(mixed: bool) -> None:
    labels = np.array([0] * 40 + [1] * 4)
    groups = np.array([f"b{n % 20}" for n in range(40)] + (["b0", "b1"] * 2 if mixed else ["m0", "m1"] * 2))
    resamples = resample_groups(labels, groups, 500, np.random.default_rng(0))
    weights = np.concatenate(list(resamples.tile_weights()), axis=1)
    assert weights.shape == (44, 500)
    assert (weights[labels == 0].sum(axis=0) > 0).all()
    assert (weights[labels == 1].sum(axis=0) > 0).all()
    assert (resamples.drawn.sum(axis=0) == len(np.unique(groups))).all()
    assert (weights[0] == weights[20]).all(), "tiles of one group are drawn together"


def test_tile_weights_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities, groups = make_tiles()
    whole = bootstrap_metrics(labels, probabilities, groups, resamples=150)
    monkeypatch.setattr("oncoshift.evaluation.resampling._CHUNK_ELEMENTS", 7 * len(labels))
    chunked = bootstrap_metrics(labels, probabilities, groups, resamples=150)
    for name in METRIC_NAMES:
        assert chunked[name].as_dict() == pytest.approx(whole[name].as_dict())


@pytest.mark.parametrize(
    ("labels", "groups", "named"),
    [
        ([0, 1, 0, 1], ["a", "a", "a", "a"], "benign tiles come from 1 group"),
        ([0, 0, 0, 0], ["a", "a", "b", "b"], "malignant tiles come from 0 group"),
        ([0, 0, 1, 1], ["a", "b", "c", "c"], "malignant tiles come from 1 group"),
    ],
)
def test_too_few_groups_allow_no_interval(labels: list[int], groups: list[str], named: str) -> None:
    with pytest.raises(TooFewGroupsError, match=named):
        bootstrap_metrics(np.array(labels), np.array([0.1, 0.4, 0.6, 0.9]), np.array(groups))


def test_shapes_that_would_broadcast_are_refused() -> None:
    labels, probabilities, groups = make_tiles(seeds=1)
    with pytest.raises(DataError, match="must all be"):
        bootstrap_metrics(labels, probabilities.T, groups)
    with pytest.raises(DataError, match=r"\[seeds, N\]"):
        bootstrap_metrics(labels, probabilities[None], groups)


def test_a_model_does_not_differ_from_itself() -> None:
    labels, probabilities, groups = make_tiles()
    for interval in bootstrap_differences(labels, probabilities, probabilities, groups, resamples=100).values():
        assert (interval.point, interval.low, interval.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_the_difference_is_a_minus_b_of_the_means_over_seeds() -> None:
    labels, a, groups = make_tiles(seeds=3, gain=0.4)
    _, b, _ = make_tiles(seeds=2, gain=0.1)
    interval = bootstrap_differences(labels, a, b, groups, resamples=200)["balanced_accuracy"]
    means = [np.mean([balanced_accuracy_score(labels, (row >= 0.5).astype(int)) for row in model]) for model in (a, b)]
    assert interval.point == pytest.approx(means[0] - means[1])
    assert interval.low > 0
    back = bootstrap_differences(labels, b, a, groups, resamples=200)["balanced_accuracy"]
    assert back.point == pytest.approx(-interval.point)


def test_pairing_narrows_the_interval_of_models_that_err_alike() -> None:
    labels, b, groups = make_tiles(seeds=1, group_noise=0.3)
    a = np.clip(b + 0.05 * (2 * labels - 1), 0, 1)
    paired = bootstrap_differences(labels, a, b, groups, names=("auroc",))["auroc"]
    alone = [bootstrap_metrics(labels, one, groups, names=("auroc",))["auroc"] for one in (a, b)]
    assert paired.low > 0, "a is better on every group"
    assert alone[0].low < alone[1].high, "which their own intervals do not show"
    assert paired.high - paired.low < 0.5 * min(one.high - one.low for one in alone)


def test_a_ratio_of_sums_over_groups() -> None:
    rng = np.random.default_rng(0)
    below, groups = rng.random(200), (np.arange(200) % 25).astype(str)
    above = below * rng.normal(2.0, 0.3, 200)
    interval = bootstrap_ratio(above, below, groups, seed=1)
    assert interval.point == pytest.approx(above.sum() / below.sum())
    assert interval.low < 2.0 < interval.high
    exact = bootstrap_ratio(3 * below, below, groups)
    assert (exact.low, exact.high) == pytest.approx((3, 3))


def test_a_ratio_needs_two_groups_equal_shapes_and_a_denominator() -> None:
    ones, groups = np.ones(4), np.array(list("aabb"))
    with pytest.raises(TooFewGroupsError):
        bootstrap_ratio(ones, ones, np.array(["a"] * 4))
    with pytest.raises(DataError, match="sum to 0"):
        bootstrap_ratio(ones, 0 * ones, groups)
    with pytest.raises(DataError, match=r"must all be \[N\]"):
        bootstrap_ratio(ones[:, None], ones, groups)


def test_a_thousand_resamples_of_three_seeds_and_a_thousand_tiles_take_no_more_than_a_few_seconds() -> None:
    labels, probabilities, groups = make_tiles(tiles=1000, groups=200)
    started = time.process_time()
    bootstrap_metrics(labels, probabilities, groups, resamples=1000)
    assert time.process_time() - started < 5, "0.1 s is usual; scikit-learn in a loop takes a minute"
