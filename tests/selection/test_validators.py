"""The table of validators is complete, and the rule scores a row of figures by it."""

from __future__ import annotations

import numpy as np
import pytest

from oncoshift.selection.binary import as_softmax
from oncoshift.selection.registry import VALIDATORS
from oncoshift.selection.rule import ORACLE, reaches_floor, score_row
from oncoshift.selection.snd import SND_TILES, soft_neighbourhood_density
from oncoshift.selection.validators import Predictions, compute_scores, score
from oncoshift.settings import SelectSettings

LABELS = np.array([0, 1, 0, 1])
EXTREMES = {
    "certain, one class": np.ones(50),
    "certain, both": np.arange(50) % 2 * 1.0,
    "undecided": np.full(50, 0.5),
    "random": np.random.default_rng(0).random(50),
}


def model(target: np.ndarray) -> Predictions:
    return Predictions(np.array([0.1, 0.9, 0.6, 0.7]), LABELS, target, np.arange(len(target), dtype=np.float64) % 3)


def test_every_choice_of_the_setting_is_in_the_table_or_the_oracle() -> None:
    assert {*VALIDATORS, ORACLE} == set(SelectSettings.model_json_schema()["properties"]["validator"]["enum"])


@pytest.mark.parametrize("name", list(VALIDATORS))
def test_no_score_is_below_the_least_value_of_its_validator(name: str) -> None:
    wrong = Predictions(1 - LABELS * 1.0, LABELS, np.ones(50), np.arange(50.0))
    for each in (*map(model, EXTREMES.values()), wrong):
        assert score(name, each) >= VALIDATORS[name].lowest - 1e-9


def test_scores_by_hand() -> None:
    scores = compute_scores(model(np.array([0.0, 1.0, 0.65, 0.5])))
    assert scores["source_accuracy"] == 0.75  # of two benign and two malignant tiles one benign is called malignant
    # One of four is wrong: the threshold is the second least of .6, .7, .9, .9. Two of four reach
    # .7.
    assert scores["atc"] == 0.5
    entropy = -(0.65 * np.log2(0.65) + 0.35 * np.log2(0.35))
    assert scores["entropy"] == pytest.approx(-(entropy + 1) / 4)
    mean = 2.15 / 4
    of_mean = -(mean * np.log2(mean) + (1 - mean) * np.log2(1 - mean))
    assert scores["information_maximisation"] == pytest.approx(of_mean - (entropy + 1) / 4)
    softmax = as_softmax(np.array([0.0, 1.0, 0.65, 0.5]))
    assert scores["bnm"] == pytest.approx(np.linalg.norm(softmax, "nuc") / np.sqrt(8))
    assert scores["snd"] == pytest.approx(soft_neighbourhood_density(softmax))


def test_density_looks_at_so_many_tiles_at_most() -> None:
    target = np.random.default_rng(1).random(2 * SND_TILES + 1)
    found = score("snd", model(target))
    assert found == pytest.approx(soft_neighbourhood_density(as_softmax(target[::3])))
    assert len(target[::3]) <= SND_TILES


@pytest.mark.parametrize("name", [*VALIDATORS, ORACLE])
def test_every_model_above_the_floor_is_before_every_model_below(name: str) -> None:
    select = SelectSettings(validator=name, source_floor=0.8)
    lowest = -1.0 if name in ("entropy", "nuclei") else 0.0
    above = {"source_accuracy": 0.8, name: lowest if name != "source_accuracy" else 0.8}
    below = {"source_accuracy": 0.79, name: 5.0 if name != "source_accuracy" else 0.79}
    assert score_row(select, above) > score_row(select, below)
    assert reaches_floor(select, score_row(select, above))
    assert not reaches_floor(select, score_row(select, below))


def test_the_row_is_scored_by_the_chosen_validator() -> None:
    row = {"source_accuracy": 0.9, "information_maximisation": 0.4, "entropy": -0.2, "oracle": 0.6}
    chosen = ("information_maximisation", "entropy", "source_accuracy", "oracle")
    scores = {name: score_row(SelectSettings(validator=name), row) for name in chosen}
    assert scores == {name: row[name] for name in chosen}
    assert score_row(SelectSettings(source_floor=0.95), row) == pytest.approx(-0.1)


def test_the_oracle_is_not_to_be_had_from_a_row_of_training() -> None:
    with pytest.raises(KeyError, match="oracle"):
        score_row(SelectSettings(validator=ORACLE), {"source_accuracy": 0.9, **compute_scores(model(np.ones(3)))})


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="least value"):
        score_row(SelectSettings(), {"source_accuracy": 0.9, "information_maximisation": float("nan")})
