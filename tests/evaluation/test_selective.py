"""Risk–coverage curves: by hand, with ties, and in table and figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from oncoshift.evaluation.selective import compute_risk_coverage, describe_aurc, draw_risk_coverage_figure


def test_a_worked_example() -> None:
    # By confidence: 0.95 right, 0.1 right, 0.8 wrong, 0.4 wrong.
    curve = compute_risk_coverage(np.array([0, 1, 0, 1]), np.array([0.8, 0.95, 0.1, 0.4]))
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 0, 1 / 3, 2 / 4])
    assert curve.aurc == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_errors_of_equally_confident_tiles_are_spread_over_them() -> None:
    labels, probabilities = np.array([0, 1, 1, 1]), np.full(4, 0.9)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        curve = compute_risk_coverage(labels[order], probabilities[order])
        assert curve.risk == pytest.approx([0.25] * 4)


def test_confidence_is_the_distance_from_the_threshold() -> None:
    labels, probabilities = np.array([0, 1]), np.array([0.5, 0.99])
    near = compute_risk_coverage(labels, probabilities, threshold=0.49)
    assert near.risk == pytest.approx([0, 0.5]), "the tile just above the threshold comes last"
    assert compute_risk_coverage(labels, np.array([0.0, 1.0])).aurc == 0, "certain tiles are no fault"


def test_the_table_and_the_figure_show_every_organ() -> None:
    rows = [
        (f"{organ}{n}", organ, f"g{n}", n % 2, 0.2 + 0.5 * (n % 2), 0) for organ in ("colon", "lung") for n in range(8)
    ]
    table = pd.DataFrame(rows, columns=["tile_id", "organ", "group", "label", "probability", "seed"])
    assert "| lung | 0.000 | 0.000 | 0.000 | 0.000 |" in describe_aurc(table)
    (legend,) = draw_risk_coverage_figure(table).legends
    assert [text.get_text() for text in legend.get_texts()] == ["colon: AURC 0.000", "lung: AURC 0.000"]
