"""The embedding map shows every organ and both labels of each model, and picks tiles evenly."""

from __future__ import annotations

import numpy as np

from oncoshift.evaluation.embedding import FeatureMap, draw_embedding, pick_rows


def make_map(title: str, gap: float) -> FeatureMap:
    """Make features whose first direction separates kidney from lung by a gap."""
    rng = np.random.default_rng(0)
    organs, labels = np.repeat(["kidney", "lung"], 20), np.arange(40) % 2
    features = rng.normal(0, 0.1, (40, 8))
    features[:, 0] += gap * (organs == "kidney")
    return FeatureMap(title, features, organs, labels.astype(np.int64))


def test_each_model_has_a_map_by_organ_and_one_by_label() -> None:
    figure = draw_embedding([make_map("before", 5.0), make_map("after", 0.0)], "kidney")
    assert [axes.get_title() for axes in figure.axes] == ["before", "after", "", ""]
    legends = [axes.get_legend() for axes in figure.axes]
    texts = [[text.get_text() for text in each.get_texts()] for each in legends if each is not None]
    assert texts == [["lung", "kidney (target)"], ["benign", "malignant"]]
    for axes in figure.axes:
        assert sum(len(np.asarray(points.get_offsets())) for points in axes.collections) == 40
    shares = [int(axes.get_xlabel().split("(")[1].split("%")[0]) for axes in figure.axes[:2]]
    assert shares[0] > 90 > shares[1], "the gap is the first component"


def test_few_tiles_are_all_shown_and_many_are_picked_evenly() -> None:
    organs = np.array(["a"] * 100 + ["b"] * 3)
    rows = pick_rows(organs, most=11)
    assert rows.tolist() == [0, 9, 19, 29, 39, 49, 59, 69, 79, 89, 99, 100, 101, 102]
