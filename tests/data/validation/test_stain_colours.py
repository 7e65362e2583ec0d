"""Tissue colours are measured by deconvolution and a colour-only score, and warnings follow."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from oncoshift.data.validation.stains import STAINS, colour_auroc, stain_strengths
from oncoshift.data.validation.warnings import find_warnings


def organ(benign: int = 12, malignant: int = 12, shift: float = 0.0, per_group: int = 5) -> pd.DataFrame:
    """Make tiles of lung whose malignant ones have `shift` more red density."""
    rng = np.random.default_rng(0)
    rows = [
        ("lung", label, f"g{label}{group}", *(rng.normal(0.5, 0.05, 3) + np.array([label * shift, 0, 0])))
        for label, groups in enumerate((benign, malignant))
        for group in range(groups)
        for _ in range(per_group)
    ]
    return pd.DataFrame(rows, columns=["organ", "label", "group", "density_red", "density_green", "density_blue"])


def test_pure_stains_come_apart() -> None:
    amounts = np.array([[0.7, 0.0, 0.0], [0.0, 0.4, 0.0], [0.3, 0.2, 0.1]])
    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    assert stain_strengths(amounts @ unit) == pytest.approx(amounts)


def test_a_colour_that_tells_the_classes_scores_one() -> None:
    score = colour_auroc(organ(shift=1.0))
    assert score is not None
    assert score > 0.99


def test_a_colour_of_the_group_alone_scores_nothing() -> None:
    tiles = organ(per_group=20)
    rng = np.random.default_rng(1)
    of_group = {group: rng.normal(0, 0.5) for group in tiles["group"].unique()}
    tiles["density_red"] += tiles["group"].map(of_group)
    score = colour_auroc(tiles)
    assert score is not None
    assert score < 0.75


def test_no_score_without_two_groups_a_class() -> None:
    assert colour_auroc(organ(malignant=1)) is None
    assert colour_auroc(organ(malignant=0)) is None
    assert colour_auroc(organ().assign(label=-1)) is None


@pytest.mark.parametrize(
    ("tiles", "said"),
    [
        (organ(malignant=0), "lung: no malignant tile"),
        (organ(malignant=1), "lung: 1 group with malignant tiles; as a source it needs at least 2"),
        (organ(malignant=9), "lung: 9 groups with malignant tiles"),
        (organ(benign=60, malignant=10), "lung: 14% of the labelled tiles are malignant"),
        (organ().assign(label=-1), "lung: no tile has a label"),
    ],
    ids=["one class", "one group", "few groups", "imbalance", "unlabelled"],
)
def test_a_warning_says_what_is_wrong(tiles: pd.DataFrame, said: str) -> None:
    assert any(line.startswith(said) for line in find_warnings(tiles, {}))


def test_colour_as_a_shortcut_is_warned_of() -> None:
    assert find_warnings(organ(), {"lung": 0.7}) == []
    (line,) = find_warnings(organ(), {"lung": 0.95})
    assert line.startswith("lung: mean colour alone separates benign from malignant (AUROC 0.95")
