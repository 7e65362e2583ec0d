"""Every organ has a row with each metric and its interval, or the reason why there is none."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from oncoshift.errors import DataError
from oncoshift.evaluation.domains import aggregate_groups, evaluate_domains, evaluate_groups, split_by_organ
from oncoshift.evaluation.metrics import compute_metrics
from oncoshift.evaluation.weighted import METRIC_NAMES
from oncoshift.settings import EvaluateSettings

SETTINGS = EvaluateSettings(bootstrap=200)


def make_predictions(
    sizes: dict[str, tuple[int, int]], seeds: tuple[int, ...] = (0, 1), gain: float = 2.0
) -> pd.DataFrame:
    """Make predictions for organs of (tiles, groups), better than chance."""
    rng = np.random.default_rng(0)
    rows = []
    for organ, (tiles, groups) in sizes.items():
        for tile in range(tiles):
            label = tile % groups % 2
            for seed in seeds:
                probability = 1 / (1 + np.exp(-gain * (label - 0.5) - rng.normal()))
                rows.append((f"{organ}/{tile:03d}", organ, f"{organ}-{tile % groups}", label, probability, seed))
    return pd.DataFrame(rows, columns=["tile_id", "organ", "group", "label", "probability", "seed"])


def test_one_row_an_organ_with_a_value_and_both_ends_of_every_metric() -> None:
    predictions = make_predictions({"lung": (120, 20), "colon": (80, 10)})
    report = evaluate_domains(predictions, SETTINGS)
    frame = report.to_frame().set_index("organ")
    assert frame.index.tolist() == ["colon", "lung"]
    assert frame.loc["lung", ["tiles", "groups", "seeds"]].tolist() == [120, 20, 2]
    for name in METRIC_NAMES:
        assert (frame[f"{name}_low"] < frame[f"{name}_high"]).all()
    lung = predictions[(predictions.organ == "lung") & (predictions.seed == 1)]
    expected = compute_metrics(
        lung.label.to_numpy(), lung.probability.to_numpy(), lung.group.to_numpy(str), bins=SETTINGS.calibration_bins
    )
    assert report.organs[1].per_seed[1] == expected


def test_a_seeds_intervals_are_those_of_its_model_alone() -> None:
    predictions = make_predictions({"lung": (120, 20)})
    (both,) = evaluate_domains(predictions, SETTINGS).organs
    (alone,) = evaluate_domains(predictions[predictions.seed == 1], SETTINGS).organs
    assert both.seed_intervals(1) == alone.intervals == alone.seed_intervals(1) != both.intervals
    interval = alone.intervals["auroc"]
    assert both.in_words("auroc", 1) == f"{interval.point:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    assert both.in_words("auroc") == str(both.intervals["auroc"])


def test_the_order_of_the_rows_does_not_matter() -> None:
    predictions = make_predictions({"lung": (60, 12)})
    shuffled = predictions.sample(frac=1, random_state=0)
    assert evaluate_domains(shuffled, SETTINGS).to_dict() == evaluate_domains(predictions, SETTINGS).to_dict()


def test_arrays_by_organ_are_aligned_to_tiles_and_seeds() -> None:
    predictions = make_predictions({"lung": (30, 6)}, seeds=(7, 3)).sample(frac=1, random_state=1)
    (lung,) = split_by_organ(predictions)
    assert lung.seeds == (3, 7)
    assert lung.probabilities.shape == (2, 30)
    indexed = predictions.set_index(["tile_id", "seed"])
    for tile in (0, 17):
        for row, seed in enumerate(lung.seeds):
            assert lung.probabilities[row, tile] == indexed.loc[(f"lung/{tile:03d}", seed), "probability"]
        assert lung.labels[tile] == indexed.loc[(f"lung/{tile:03d}", 3), "label"]


def test_an_organ_with_too_few_groups_keeps_its_metrics_and_says_why_there_is_no_interval() -> None:
    report = evaluate_domains(make_predictions({"kidney": (20, 2), "lung": (60, 12)}), SETTINGS)
    kidney, lung = report.organs
    assert kidney.intervals == {}
    assert kidney.seed_intervals(1) == {}
    assert kidney.in_words("auroc", 1) == f"{kidney.per_seed[1].auroc:.3f}"
    assert "from 1 group" in kidney.note
    assert lung.note == ""
    row = report.to_frame().iloc[0]
    assert 0 < row["accuracy"] <= 1
    assert np.isnan(row["accuracy_low"])
    assert "kidney: no interval" in report.to_markdown()


def test_an_organ_of_one_class_has_no_auroc_in_any_form() -> None:
    predictions = make_predictions({"lung": (40, 8)})
    report = evaluate_domains(predictions[predictions.label == 1], SETTINGS)
    assert np.isnan(report.to_frame()["auroc"].iloc[0])
    assert "–" in report.to_markdown()
    assert report.to_dict()["lung"]["seeds"]["0"]["auroc"] is None


def test_the_dictionary_is_json_and_the_markdown_a_table() -> None:
    report = evaluate_domains(make_predictions({"lung": (60, 12), "colon": (40, 8)}), SETTINGS)
    values = report.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    header, rule, *rows = report.to_markdown().splitlines()
    assert len(rows) == 2 + len(METRIC_NAMES)
    assert header == "| metric | colon | lung |"
    assert {line.count("|") for line in (header, rule, *rows)} == {header.count("|")}
    interval = report.organs[1].intervals["auroc"]
    (row,) = (line for line in rows if line.startswith("| AUROC |"))
    assert f"{interval.point:.3f} [{interval.low:.3f}, {interval.high:.3f}]" in row


def test_seeds_must_cover_the_same_tiles_once() -> None:
    predictions = make_predictions({"lung": (40, 8)})
    with pytest.raises(DataError, match="lung: every seed must predict the same 40 tiles"):
        evaluate_domains(predictions.iloc[:-1], SETTINGS)
    with pytest.raises(DataError, match="once each"):
        evaluate_domains(pd.concat([predictions, predictions.iloc[:1]]), SETTINGS)
    with pytest.raises(DataError, match=r"lack the column\(s\) group"):
        evaluate_domains(predictions.drop(columns="group"), SETTINGS)


def test_a_group_has_the_mean_probability_of_its_tiles_and_a_mixed_group_counts_once_for_each_label() -> None:
    rows = [
        ("a/0", "lung", "a", 0, 0.1, 0),
        ("a/1", "lung", "a", 0, 0.3, 0),
        ("a/2", "lung", "a", 1, 0.9, 0),
        ("b/0", "lung", "b", 1, 0.6, 0),
    ]
    table = pd.DataFrame(rows, columns=["tile_id", "organ", "group", "label", "probability", "seed"])
    groups = aggregate_groups(table).set_index("tile_id")
    assert groups["probability"].to_dict() == pytest.approx({"a/0": 0.2, "a/1": 0.9, "b/1": 0.6})
    assert groups["label"].to_dict() == {"a/0": 0, "a/1": 1, "b/1": 1}


def test_groups_are_evaluated_with_intervals_of_their_own() -> None:
    predictions = make_predictions({"lung": (120, 20)})
    tiles, groups = evaluate_domains(predictions, SETTINGS), evaluate_groups(predictions, SETTINGS)
    assert groups.organ("lung").per_seed[0].tiles == predictions.groupby(["group", "label"]).ngroups
    assert groups.organ("lung").intervals["auroc"] != tiles.organ("lung").intervals["auroc"]
    assert "| tiles (groups) | 120 (20) |" in tiles.to_markdown()
    assert f"| groups | {groups.organ('lung').per_seed[0].tiles} |" in groups.to_markdown()


def test_each_seed_is_judged_at_its_own_threshold() -> None:
    predictions = make_predictions({"lung": (40, 8)})
    strict = predictions.assign(threshold=predictions["seed"].map({0: 0.5, 1: 0.99}))
    plain, (judged,) = evaluate_domains(predictions, SETTINGS).organs[0], evaluate_domains(strict, SETTINGS).organs
    assert judged.per_seed[0] == plain.per_seed[0]
    assert judged.per_seed[1].tp < plain.per_seed[1].tp
    assert judged.intervals["sensitivity"].point == pytest.approx(judged.mean("sensitivity"))
