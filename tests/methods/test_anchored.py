"""A head in closed form recovers classes from a weak anchor, and is the network that is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from oncoshift.errors import SettingsError
from oncoshift.methods.anchored import Anchored, solve
from oncoshift.selection.verdict import SAFE_SHARES
from oncoshift.settings import parse_settings
from oncoshift.training.closed_form import fit_closed_form
from oncoshift.training.diagnostics import list_findings
from oncoshift.training.prediction import predict

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from oncoshift.settings import Settings

CPU = torch.device("cpu")


def draw(
    malignant: float = 0.5, tiles: int = 400, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Draw features of which eight separate the classes, labels, and an anchor of AUROC .76."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(tiles) < malignant * tiles).astype(np.int64)
    features = rng.normal(0, 1, (tiles, 30))
    features[:, :8] += 2 * (2 * labels - 1)[:, None]
    return features * 5 + 40, labels, labels + rng.normal(0, 1, tiles)


def measure_accuracy(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    called = probabilities > 0.5
    return float((called[labels == 1].mean() + (~called[labels == 0]).mean()) / 2)


def test_a_weak_anchor_suffices() -> None:
    features, labels, anchor = draw()
    assert measure_accuracy((anchor > np.median(anchor)).astype(float), labels) < 0.75
    solution = solve(features, anchor, components=16)
    assert measure_accuracy(solution.predict(features), labels) > 0.98
    assert solution.malignant_share == pytest.approx(0.5, abs=0.02)


def test_an_anchor_that_points_the_other_way_inverts_the_classes() -> None:
    """This is the method's limit: nothing else tells it the names of the classes."""
    features, labels, anchor = draw()
    assert measure_accuracy(solve(features, -anchor, 16).predict(features), labels) < 0.02


@pytest.mark.parametrize("malignant", [0.2, 0.75])
def test_classes_of_unequal_size_are_told_apart(malignant: float) -> None:
    features, labels, anchor = draw(malignant)
    solution = solve(features, anchor, 16)
    assert measure_accuracy(solution.predict(features), labels) > 0.98
    assert solution.malignant_share == pytest.approx(malignant, abs=0.02)


@pytest.mark.parametrize("malignant", [0.05, 0.15, 0.85, 0.92])
def test_a_rare_class_is_hinted_at_whether_it_was_found_or_not(malignant: float) -> None:
    features, _, anchor = draw(malignant)
    share = solve(features, anchor, 16).malignant_share
    assert not SAFE_SHARES[0] <= share <= SAFE_SHARES[1]
    assert (share < 0.5) == (malignant < 0.5)


def test_unequal_classes_are_a_finding(settings_for: Callable[..., Settings]) -> None:
    features, _, anchor = draw(malignant=0.15)
    share = solve(features, anchor, 16).malignant_share
    row = {"target_malignant_share": 0.4, "estimated_malignant_share": share}
    (finding,) = list_findings([row], settings_for("anchored", 0))
    assert finding.startswith(f"unequal classes: about {share:.0%} of the target seems malignant")


def test_a_seed_draws_its_tiles_and_all_tiles_leave_nothing_to_draw() -> None:
    features, _, anchor = draw()
    drawn = [solve(features, anchor, 16, tiles=0.5, seed=seed).weights for seed in (0, 0, 1)]
    assert (drawn[0] == drawn[1]).all()
    assert not np.allclose(np.abs(drawn[0]), np.abs(drawn[2]))


def test_a_feature_that_does_not_vary_is_left_out() -> None:
    features, labels, anchor = draw()
    features[:, 5] = 7.0
    solution = solve(features, anchor, 16)
    assert np.isfinite(solution.projection).all()
    features[:, 5] = 1e6
    assert measure_accuracy(solution.predict(features), labels) > 0.98


def test_shapes_that_do_not_fit_are_refused() -> None:
    features, _, anchor = draw()
    with pytest.raises(ValueError, match="an anchor"):
        solve(features, anchor[:5], 16)


@pytest.fixture
def fitted(world: Callable[..., Any], settings_for: Callable[..., Settings], build: Callable[..., Any]) -> Any:
    """A world, the method fitted to it, and its figures."""
    given, settings = world(0), settings_for("anchored", 0, model={"dropout": 0.5})
    given.inputs.values[:, 2:40] += given.inputs.values[:, :1]  # real features share what they see
    method = build(settings)
    assert isinstance(method, Anchored)
    return given, method, fit_closed_form(method, given.data, given.inputs, settings, CPU)


def test_the_network_says_what_the_solution_says(fitted: Any, accuracy: Callable[..., float]) -> None:
    given, method, (row,) = fitted
    rows = given.data.target.rows
    solution = solve(given.inputs.values[rows], given.data.anchor[rows], method.components, 0.8, 0)
    said = predict(method.net, given.inputs, rows, CPU)
    np.testing.assert_allclose(said, solution.predict(given.inputs.values[rows]), atol=1e-4)
    assert accuracy(method.net, given) > 0.95
    assert row["target_malignant_share"] == np.mean(said > 0.5)


def test_source_accuracy_is_that_of_the_recipe_on_each_source_organ(fitted: Any) -> None:
    """The target's head itself is misled by the sources' shortcut, or not: that does not count."""
    given, _, (row,) = fitted
    data = given.data
    right = []
    for organ in (0, 1):
        members, judged = data.source.rows[data.source.organs == organ], data.source_val.organs == organ
        solution = solve(given.inputs.values[members], data.anchor[members], 16, 0.8, 0)
        called = solution.predict(given.inputs.values[data.source_val.rows[judged]]) > 0.5
        right.append(called == data.source_val.labels[judged])
    assert row["source_accuracy"] == pytest.approx(np.concatenate(right).mean(), abs=0.01)


def test_several_processes_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"anchored is computed by one process; set train\.processes"):
        parse_settings({"train": {"method": "anchored", "processes": 2}})
    with pytest.raises(SettingsError, match="anchored is computed by one process"):
        parse_settings({"train": {"processes": 2}, "retrain": {"methods": ["cdan", "anchored"]}})


@pytest.mark.parametrize("method", ["anchored", "self_training_orient"])
def test_seeds_are_not_picked_by_the_anchor_that_trained_them(method: str) -> None:
    named, select = {"model": {"freeze": "all"}, "select": {"validator": "nuclei"}}, "select.validator nuclei"
    parse_settings({"train": {"method": "dann"}, **named})
    with pytest.raises(SettingsError, match=f"{select} is no witness for {method}"):
        parse_settings({"train": {"method": method}, **named})
    with pytest.raises(SettingsError, match=f"{select} is no witness for {method}"):
        parse_settings({"retrain": {"methods": ["mcc", method]}, **named})
