"""An estimate of balanced accuracy on a batch without labels, with an interval.

Calibrated probabilities p give an expected sensitivity, Σ p over the tiles that are called
malignant divided by Σ p over all, and likewise an expected specificity (confidence-based
performance estimation). Calibration on the sources need not hold on the target. So where the
version was measured on labelled tiles of the target, only the change of this expectation since
training is added to that figure (difference of confidences: Guillory 2021, arXiv 2107.03315).

A model whose classes adaptation turned around is just as confident, so no such estimate sees it.
What the verdict without labels says of the model decides what the estimate is worth:

- trust: the interval is that of the bootstrap over groups, and of the labelled figure;
- doubt: it also covers the model with its classes turned around, unless the labelled figure's own
  interval lies above chance;
- refuse: there is no estimate.

Nor does confidence tell of tiles unlike those of training. Where stain, quality, embedding or
abstention has passed its limit, the interval goes down to chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.evaluation.resampling import draw_groups
from oncoshift.selection.verdict import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from oncoshift.settings import EvaluateSettings
    from oncoshift.watching.profile import Profile

CHANCE = 0.5


@dataclass(frozen=True)
class Standing:
    """What is known of a version since its registration.

    Attributes:
        verdict: the verdict without labels.
        measured: balanced accuracy on labelled test tiles of the target with the ends of its
            interval; None if it was not measured.
    """

    verdict: Kind
    measured: tuple[float, float, float] | None


@dataclass(frozen=True)
class Estimate:
    """An estimate of balanced accuracy, or the reason why there is none.

    Attributes:
        point: 0 to 1; None if there is no estimate.
        low: lower end of its interval.
        high: upper end.
        words: what it rests on, and what widened it.
    """

    point: float | None
    low: float | None
    high: float | None
    words: str

    def __str__(self) -> str:
        return self.words if self.point is None else f"{self.point:.3f} [{self.low:.3f}, {self.high:.3f}]; {self.words}"


def estimate(
    reference: Profile, batch: Profile, standing: Standing, drifted: Sequence[str], settings: EvaluateSettings
) -> Estimate:
    """Estimate balanced accuracy on a batch.

    Args:
        reference: of the training tiles of the target.
        batch: of the batch.
        standing: of the version.
        drifted: names of the signals that have passed their limits and concern the tiles' look.
        settings: section `evaluate`: the bootstrap.
    """
    if standing.verdict is Kind.REFUSE:
        return Estimate(
            None, None, None, "none: the verdict on the version is refuse, so its confidence proves nothing"
        )
    trained, found = reference.usable, batch.usable
    if not len(found.tiles):
        return Estimate(None, None, None, "none: no tile can be judged")
    rng = np.random.default_rng(0)
    point, drawn = _expect(found, settings.bootstrap, rng)
    spread, basis = (0.0, 0.0), "expected from calibrated probabilities"
    if standing.measured is not None:
        measured, low, high = standing.measured
        before, drawn_before = _expect(trained, settings.bootstrap, rng, draw_labels=False)
        point, drawn = measured + point - before, measured + drawn - drawn_before
        spread, basis = (
            (measured - low, high - measured),
            f"{measured:.3f} on labelled test tiles, and confidence since",
        )
    ends = np.percentile(drawn, [50 * (1 - settings.confidence), 50 * (1 + settings.confidence)])
    low = point - float(np.hypot(max(point - ends[0], 0), spread[0]))
    high = point + float(np.hypot(max(ends[1] - point, 0), spread[1]))
    reasons = [basis]
    if standing.verdict is Kind.DOUBT and (standing.measured is None or standing.measured[1] <= CHANCE):
        low = min(low, 1 - high)
        reasons.append("the verdict is doubt, so the classes may be turned around")
    if drifted:
        low = min(low, CHANCE)
        reasons.append(f"confidence tells little of tiles unlike those of training ({', '.join(drifted)})")
    point, low, high = (float(np.clip(each, 0, 1)) for each in (point, low, high))
    return Estimate(point, low, high, "; ".join(reasons))


def _expect(
    profile: Profile, resamples: int, rng: np.random.Generator, *, draw_labels: bool = True
) -> tuple[float, NDArray[np.float64]]:
    """Compute the expected balanced accuracy, and that of resamples, [R].

    Each resample draws groups with replacement and, if asked to, labels by the probabilities.
    """
    p = profile.tiles["probability"].to_numpy(np.float64)[:, None]
    called = profile.is_called_malignant[:, None]
    index = np.unique(profile.tiles["group"], return_inverse=True)[1]
    weights = draw_groups(np.zeros(index.max() + 1, np.int64), resamples, rng)[index]
    labels = rng.random((len(p), resamples)) < p if draw_labels else p
    expected, drawn = _compute(p, called, np.ones_like(p)), _compute(labels, called, weights)
    return float(expected[0]), drawn


def _compute(
    malignant: NDArray[np.floating | np.bool_], called: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute balanced accuracy, [R], from labels or their probabilities and weights, [N, R]."""
    of_malignant, of_benign = weights * malignant, weights * (1 - malignant.astype(np.float64))
    sensitivity = (of_malignant * called).sum(axis=0) / np.maximum(of_malignant.sum(axis=0), 1e-12)
    specificity = (of_benign * ~called).sum(axis=0) / np.maximum(of_benign.sum(axis=0), 1e-12)
    return np.asarray((sensitivity + specificity) / 2)
