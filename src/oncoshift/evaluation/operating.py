"""Temperature scaling and the operating point, both fitted on source validation.

With the logit z of a predicted probability, temperature scaling (Guo 2017, arXiv 1706.04599) serves
σ(z / T). T maximises the likelihood of source validation labels. A model that makes no error there
has no finite maximum, so labels are smoothed as in Platt scaling (Platt 1999): of n₁ malignant and
n₀ benign tiles the targets are (n₁ + 1) / (n₁ + 2) and 1 / (n₀ + 2). T keeps the order of tiles and
what 0.5 divides. It corrects overconfidence on the sources; how far it does so on the target is an
empirical question, which the reliability diagram answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import roc_curve

from oncoshift.errors import DataError
from oncoshift.evaluation.metrics import check_predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.settings import EvaluateSettings

_TEMPERATURES = (0.05, 20.0)
_TINY = 1e-15
"""Probabilities are clipped this far from 0 and 1 before the logit."""


@dataclass(frozen=True)
class Calibration:
    """How a model's probabilities are scaled and divided into classes.

    Attributes:
        temperature: divides the logits; above 1 it makes the model less confident.
        threshold: probability, after scaling, from which a tile is malignant.
    """

    temperature: float = 1.0
    threshold: float = 0.5

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale probabilities of malignant, of any shape."""
        if self.temperature == 1.0:
            return probabilities
        return np.asarray(expit(_to_logits(probabilities) / self.temperature))


def fit_calibration(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], settings: EvaluateSettings
) -> Calibration:
    """Fit temperature and operating point of one model on source validation tiles.

    Args:
        labels: [N], 0 benign, 1 malignant.
        probabilities: of malignant, [N], as the network predicts them.
        settings: section `evaluate`.

    Returns:
        Rounded values, so that fits on other machines agree.

    Raises:
        DataError: shapes or values are wrong, or an operating point needs a class that is absent.
    """
    check_predictions(labels, probabilities, np.zeros(len(labels), np.str_))
    scale = settings.calibration == "temperature"
    temperature = round(fit_temperature(labels, probabilities), 4) if scale else 1.0
    scaled = Calibration(temperature).apply(probabilities)
    threshold = choose_threshold(labels, scaled, settings)
    rounded = round(threshold, 6)
    if not 0 < rounded < 1 or not np.array_equal(scaled >= rounded, scaled >= threshold):
        rounded = threshold  # saturated probabilities lie closer to each other than that
    return Calibration(temperature, rounded)


def fit_temperature(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Fit the temperature by maximum likelihood with Platt's smoothed labels; see the module.

    Args:
        labels: [N] in {0, 1}.
        probabilities: of malignant, [N].

    Returns:
        0.05 to 20.
    """
    z = _to_logits(probabilities)
    malignant = int(labels.sum())
    target = np.where(labels == 1, (malignant + 1) / (malignant + 2), 1 / (len(labels) - malignant + 2))

    def compute_loss(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0.0, scaled) - target * scaled))

    found = minimize_scalar(compute_loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded")
    return float(np.exp(found.x))


def choose_threshold(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], settings: EvaluateSettings
) -> float:
    """Choose the threshold by `evaluate.operating_point`.

    A threshold that depends on scores lies halfway between two of them, so that rounding of a
    served probability does not move a validation tile to the other class.

    Args:
        labels: [N] in {0, 1}.
        probabilities: of malignant, [N], scaled.
        settings: section `evaluate`.

    Raises:
        DataError: the rule needs both classes, and one is absent.
    """
    if settings.operating_point == "fixed":
        return settings.threshold
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"evaluate.operating_point {settings.operating_point} needs benign and malignant tiles in source "
            "validation; set it to fixed, or raise split.val_share"
        )
    false_positive, true_positive, thresholds = roc_curve(labels, probabilities, drop_intermediate=False)
    if settings.operating_point == "youden":
        chosen = int(np.argmax(true_positive - false_positive))
    else:
        chosen = int(np.argmax(true_positive >= settings.min_sensitivity))
    upper = min(float(thresholds[chosen]), 1.0)
    lower = float(thresholds[chosen + 1]) if chosen + 1 < len(thresholds) else 0.0
    return (upper + lower) / 2


def _to_logits(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(logit(np.clip(probabilities, _TINY, 1 - _TINY)))
