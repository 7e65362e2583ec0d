"""The correlation of predictions with an anchor tells a model from its opposite."""

from __future__ import annotations

import numpy as np
import pytest

from oncoshift.selection.anchor import correlate_with_anchor

RNG = np.random.default_rng(0)
TRUTH = np.arange(200) % 2
ANCHOR = TRUTH + RNG.normal(0, 1, 200)
RIGHT = np.where(RNG.random(200) < 0.95, TRUTH, 1 - TRUTH) * 0.9 + 0.05


def test_a_right_model_follows_it_and_its_opposite_does_not() -> None:
    assert correlate_with_anchor(RIGHT, ANCHOR) > 0.3
    assert correlate_with_anchor(1 - RIGHT, ANCHOR) == pytest.approx(-correlate_with_anchor(RIGHT, ANCHOR))


def test_it_is_pearsons() -> None:
    assert correlate_with_anchor(RIGHT, ANCHOR) == pytest.approx(np.corrcoef(RIGHT, ANCHOR)[0, 1])
    assert correlate_with_anchor(RIGHT, 3 * ANCHOR - 7) == pytest.approx(correlate_with_anchor(RIGHT, ANCHOR))


def test_a_constant_says_nothing() -> None:
    assert correlate_with_anchor(np.full(200, 0.7), ANCHOR) == 0
    assert correlate_with_anchor(RIGHT, np.zeros(200)) == 0


def test_other_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match="an anchor of each of 200 tiles"):
        correlate_with_anchor(RIGHT, ANCHOR[:10])
