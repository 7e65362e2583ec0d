"""Two runs on common tiles: differences, McNemar's exact test, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from oncoshift.errors import DataError
from oncoshift.evaluation.comparison import Comparison, compare_predictions
from oncoshift.settings import EvaluateSettings

SETTINGS = EvaluateSettings(bootstrap=100)


def make_table(gain: float, tiles: int = 80, groups: int = 16, seeds: int = 2, first: int = 0) -> pd.DataFrame:
    """Make predictions of kidney tiles `first` to `tiles`, whose classes lie `gain` apart."""
    rng = np.random.default_rng(7)
    rows = []
    for seed in range(seeds):
        noise = rng.normal(0, 0.15, tiles)
        for tile in range(first, tiles):
            label = tile % groups % 2
            probability = float(np.clip(0.5 + gain * (label - 0.5) + noise[tile], 0, 1))
            rows.append((f"k/{tile:03d}", "kidney", f"g{tile % groups}", label, probability, seed))
    return pd.DataFrame(rows, columns=["tile_id", "organ", "group", "label", "probability", "seed"])


def compare(a: pd.DataFrame, b: pd.DataFrame) -> Comparison:
    return compare_predictions(("control", a), ("adapted", b), "kidney", SETTINGS)


def test_the_difference_is_b_minus_a_with_a_paired_interval() -> None:
    found = compare(make_table(0.1), make_table(0.8))
    pair = found.metrics["balanced_accuracy"]
    assert pair.difference is not None
    assert pair.difference.point == pytest.approx(pair.b - pair.a)
    assert pair.difference.low > 0
    back = compare(make_table(0.8), make_table(0.1)).metrics["balanced_accuracy"]
    assert back.difference is not None
    assert back.difference.point == pytest.approx(-pair.difference.point)
    assert found.note == ""


def test_mcnemar_counts_tiles_that_one_alone_gets_right_and_equals_the_textbook() -> None:
    table = make_table(1.0, tiles=40, groups=40, seeds=1)
    worse = table.assign(probability=np.where(table.index < 10, 1 - table["probability"], table["probability"]))
    found = compare(worse, table)
    assert (found.tile_test.only_a, found.tile_test.only_b) == (0, 10)
    assert found.tile_test.p_value == pytest.approx(2 * 0.5**10), "two-sided binomial"
    assert found.group_test == found.tile_test, "each tile is a group"
    assert compare(table, table).tile_test.p_value == 1.0


def test_only_common_tiles_count() -> None:
    found = compare(make_table(0.1, tiles=80), make_table(0.8, tiles=96, first=16))
    assert found.tiles == 64
    assert found.title == "kidney: 64 common test tiles, 16 groups, 2 and 2 seeds"


def test_no_common_tile_is_an_error_that_names_both_runs() -> None:
    other = make_table(0.8).assign(tile_id=lambda table: "other/" + table["tile_id"])
    with pytest.raises(DataError, match=r"no test tile of kidney in common \(80 of control and 80 of adapted\)"):
        compare(make_table(0.1), other)


def test_a_tile_whose_label_changed_is_an_error() -> None:
    other = make_table(0.8)
    other.loc[other["tile_id"] == "k/003", "label"] = 0
    with pytest.raises(DataError, match=r"1 common tiles of kidney have another label or group .* k/003"):
        compare(make_table(0.1), other)


def test_with_too_few_groups_there_are_values_and_a_reason() -> None:
    found = compare(make_table(0.1, groups=2), make_table(0.8, groups=2))
    assert found.metrics["auroc"].difference is None
    assert "no interval" in found.note
    assert f"{found.metrics['auroc'].b - found.metrics['auroc'].a:+.3f}" in found.to_markdown()


def test_the_result_is_json_and_markdown() -> None:
    found = compare(make_table(0.1), make_table(0.8))
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["metrics"]["mcc"]["difference"]["resamples"] == 100
    assert values["group_test"].keys() == {"only_a", "only_b", "p_value"}
    text = found.to_markdown()
    assert text.startswith("A: control\n\nB: adapted\n")
    assert "| balanced accuracy |" in text
    assert "McNemar, groups: only A right" in text
