"""Temperature scaling and the operating point: recovered, bounded, and what each rule promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from oncoshift.errors import DataError
from oncoshift.evaluation.calibration import expected_calibration_error
from oncoshift.evaluation.operating import Calibration, fit_calibration
from oncoshift.settings import EvaluateSettings

Arrays = tuple["np.ndarray[tuple[int], np.dtype[np.int64]]", "np.ndarray[tuple[int], np.dtype[np.float64]]"]


def make_overconfident(temperature: float, tiles: int = 4000) -> Arrays:
    """Make labels drawn from calibrated probabilities, and probabilities that are too sharp."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1.5, tiles)
    return (rng.random(tiles) < expit(z)).astype(np.int64), expit(z * temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_of_an_overconfident_model_is_found_and_calibrates_it(temperature: float) -> None:
    labels, probabilities = make_overconfident(temperature)
    found = fit_calibration(labels, probabilities, EvaluateSettings())
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    scaled = found.apply(probabilities)
    assert expected_calibration_error(labels, scaled, 10) < 0.03
    assert log_loss(labels, scaled) <= log_loss(labels, probabilities) + 1e-4
    assert roc_auc_score(labels, scaled) == pytest.approx(roc_auc_score(labels, probabilities))
    assert ((scaled >= 0.5) == (probabilities >= 0.5)).all()


def test_a_perfect_validation_set_does_not_make_the_model_certain() -> None:
    labels = np.repeat([0, 1], 50).astype(np.int64)
    probabilities = np.where(labels == 1, 0.9999, 0.0001)
    found = fit_calibration(labels, probabilities, EvaluateSettings())
    assert found.apply(np.array([0.9999]))[0] == pytest.approx(51 / 52, abs=1e-3), "Platt's target of 50 tiles"


def test_certain_probabilities_stay_finite() -> None:
    labels, probabilities = np.array([0, 1, 1, 0]), np.array([0.0, 1.0, 1.0, 1.0])
    found = fit_calibration(labels, probabilities, EvaluateSettings())
    scaled = found.apply(probabilities)
    assert np.isfinite(scaled).all()
    assert found.temperature > 1


def test_scaling_probabilities_is_scaling_logits() -> None:
    z = np.linspace(-8, 8, 9)
    np.testing.assert_allclose(Calibration(2.5).apply(expit(z)), expit(z / 2.5), rtol=1e-9)


def test_none_leaves_probabilities_as_they_are() -> None:
    labels, probabilities = make_overconfident(4.0, 100)
    found = fit_calibration(labels, probabilities, EvaluateSettings(calibration="none"))
    assert found == Calibration(1.0, 0.5)
    assert found.apply(probabilities) is probabilities


def test_a_fixed_threshold_is_that_of_the_settings() -> None:
    labels, probabilities = make_overconfident(2.0, 200)
    assert fit_calibration(labels, probabilities, EvaluateSettings(threshold=0.3)).threshold == 0.3


@pytest.mark.parametrize("floor", [0.5, 0.9, 1.0])
def test_the_sensitivity_rule_takes_the_highest_threshold_that_reaches_the_floor(floor: float) -> None:
    labels, probabilities = make_overconfident(2.0, 300)
    settings = EvaluateSettings(operating_point="sensitivity", min_sensitivity=floor)
    found = fit_calibration(labels, probabilities, settings)
    scaled = found.apply(probabilities)
    assert (scaled[labels == 1] >= found.threshold).mean() >= floor
    higher = scaled[scaled > found.threshold].min() + 1e-9
    assert (scaled[labels == 1] >= higher).mean() < floor, "the next higher threshold misses it"


def test_youdens_threshold_has_the_best_balanced_accuracy_on_validation() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 200).astype(np.int64)
    probabilities = expit(rng.normal(0, 1, 400) + 2 * labels + 3)  # well above 0.5 throughout
    found = fit_calibration(labels, probabilities, EvaluateSettings(operating_point="youden"))
    scaled = found.apply(probabilities)

    def compute_index(threshold: float) -> float:
        called = scaled >= threshold
        return float(called[labels == 1].mean() - called[labels == 0].mean())

    assert compute_index(found.threshold) == pytest.approx(max(map(compute_index, scaled)))
    assert found.threshold > 0.55
    assert found.threshold not in scaled, "between two scores, so that rounding moves no tile"


def test_a_rule_that_needs_both_classes_says_so() -> None:
    with pytest.raises(DataError, match=r"evaluate.operating_point youden needs benign and malignant tiles"):
        fit_calibration(np.ones(3, np.int64), np.array([0.2, 0.5, 0.9]), EvaluateSettings(operating_point="youden"))
