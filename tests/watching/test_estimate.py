"""The estimate of balanced accuracy is right for calibrated models, and guarded for all others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from oncoshift.selection.verdict import Kind
from oncoshift.settings import EvaluateSettings
from oncoshift.watching.estimate import Standing, estimate
from oncoshift.watching.profile import COLUMNS, Profile

SETTINGS = EvaluateSettings(bootstrap=200)
TRUSTED = Standing(Kind.TRUST, None)


def make_profile(probabilities: np.ndarray, per_group: int = 5) -> Profile:
    table = pd.DataFrame({"probability": probabilities, "group": np.arange(len(probabilities)) // per_group})
    table = table.reindex(columns=list(COLUMNS)).assign(abstain="", error="", tile="")
    return Profile(table, np.ones((len(table), 1), np.float32), 0.5)


REFERENCE = make_profile(np.tile([0.05, 0.95], 100))


def test_a_calibrated_model_gets_what_its_probabilities_say() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 0.5, 4000)
    labels, called = rng.random(4000) < p, p >= 0.5
    true = (called[labels].mean() + (~called[~labels]).mean()) / 2
    found = estimate(REFERENCE, make_profile(p), TRUSTED, [], SETTINGS)
    assert found.point == pytest.approx(true, abs=0.02)
    assert found.low is not None
    assert found.high is not None
    assert found.low < true < found.high


def test_a_labelled_figure_is_moved_by_the_change_of_confidence() -> None:
    measured = Standing(Kind.TRUST, (0.8, 0.75, 0.85))
    same = estimate(REFERENCE, REFERENCE, measured, [], SETTINGS)
    assert same.point == pytest.approx(0.8)
    assert (same.low, same.high) == pytest.approx((0.74, 0.86), abs=0.011), "that of the figure, and of the tiles"
    unsure = estimate(REFERENCE, make_profile(np.tile([0.25, 0.75], 100)), measured, [], SETTINGS)
    assert unsure.point == pytest.approx(0.8 - 0.2)


def test_what_the_verdict_says_decides_what_the_estimate_is_worth() -> None:
    trusted = estimate(REFERENCE, REFERENCE, TRUSTED, [], SETTINGS)
    doubted = estimate(REFERENCE, REFERENCE, Standing(Kind.DOUBT, None), [], SETTINGS)
    refused = estimate(REFERENCE, REFERENCE, Standing(Kind.REFUSE, (0.9, 0.8, 1.0)), [], SETTINGS)
    assert trusted.low is not None
    assert trusted.high is not None
    assert 0.88 < trusted.low < 0.95
    assert doubted.low == pytest.approx(1 - trusted.high)
    assert "turned around" in doubted.words
    assert refused.point is None
    assert "verdict on the version is refuse" in refused.words


@pytest.mark.parametrize(("low", "guarded"), [(0.7, False), (0.45, True)])
def test_labels_above_chance_settle_the_doubt(low: float, guarded: bool) -> None:
    found = estimate(REFERENCE, REFERENCE, Standing(Kind.DOUBT, (0.8, low, 0.9)), [], SETTINGS)
    assert ("turned around" in found.words) == guarded


def test_confidence_is_not_believed_on_drifted_tiles() -> None:
    found = estimate(REFERENCE, REFERENCE, TRUSTED, ["stain"], SETTINGS)
    assert found.low == 0.5
    assert "(stain)" in found.words


def test_there_is_none_of_a_batch_that_cannot_be_judged() -> None:
    unreadable = replace(REFERENCE, tiles=REFERENCE.tiles.assign(error="cannot be decoded"))
    assert estimate(REFERENCE, unreadable, TRUSTED, [], SETTINGS).point is None
