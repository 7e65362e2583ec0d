"""Slices of the tiles: every organ, the worst groups, and thirds of a measured property."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from oncoshift.evaluation.slices import WORST_GROUPS, build_slices, format_slices


def make_predictions() -> pd.DataFrame:
    """Make two organs of 10 groups; the tiles of group 0 of kidney are wrong."""
    rows = []
    for organ in ("kidney", "lung"):
        for tile in range(60):
            label = tile // 2 % 2
            wrong = organ == "kidney" and tile % 10 == 0
            rows.append((f"{organ}/{tile:02d}", organ, f"g{tile % 10}", label, float(label != wrong), 0))
    return pd.DataFrame(rows, columns=["tile_id", "organ", "group", "label", "probability", "seed"])


def build() -> pd.DataFrame:
    table = make_predictions()
    ids = table.loc[table["organ"] == "kidney", "tile_id"]
    sharpness = pd.Series([0.0 if number % 10 == 0 else 1 + number / 100 for number in range(60)], index=ids)
    return build_slices(table, pd.DataFrame({"sharpness": sharpness}), "kidney")


def test_organs_groups_and_thirds_have_their_own_figures() -> None:
    slices = build().set_index(["by", "slice"])
    assert slices.loc[("organ", "lung"), "accuracy"] == 1.0
    assert slices.loc[("organ", "kidney"), ["tiles", "groups", "accuracy"]].tolist() == [60, 10, pytest.approx(0.9)]
    groups = slices.loc["group"]
    assert len(groups) == WORST_GROUPS
    assert groups.index[0] == "g0"
    assert groups["accuracy"].tolist() == [0, 1, 1, 1, 1]
    thirds = slices.loc["sharpness"]
    assert [name.split()[0] for name in thirds.index] == ["low", "middle", "high"]
    assert thirds["tiles"].tolist() == [20, 20, 20]
    assert thirds["accuracy"].tolist() == pytest.approx([0.7, 1, 1])


def test_a_slice_with_one_class_has_no_balanced_accuracy() -> None:
    slices = build()
    table = make_predictions()
    only = table[(table["organ"] == "lung") | (table["label"] == 1)]
    one_class = build_slices(only, pd.DataFrame(index=only["tile_id"]), "kidney")
    kidney = one_class[(one_class["by"] == "organ") & (one_class["slice"] == "kidney")].iloc[0]
    assert np.isnan(kidney["balanced_accuracy"])
    assert kidney["sensitivity"] == pytest.approx(slices.iloc[0]["sensitivity"])
    assert "| organ | kidney | 30 | 10 | 1.000 |" in format_slices(one_class)
    assert "–" in format_slices(one_class)


def test_equal_values_are_one_slice() -> None:
    table = make_predictions()
    same = pd.DataFrame({"tissue": 1.0}, index=table["tile_id"])
    slices = build_slices(table, same, "kidney")
    assert slices.loc[slices["by"] == "tissue", "slice"].tolist() == ["low (1 to 1)"]
