"""Whether an audit set is large enough: an exact interval over groups, and how many more would do.

A bootstrap over a handful of groups says little about how far a metric could move, and with fewer
than two of a class there is none. The exact binomial interval (Clopper & Pearson 1934) always
exists: a group counts as right if its mean probability is on the right side of the threshold, and
the interval of balanced accuracy has the means of both classes' ends, which is conservative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import beta

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENOUGH_WIDTH = 0.2
"""Width of the interval of balanced accuracy from which an audit set counts as large enough."""

_MOST_GROUPS = 2000
"""Groups of a class up to which is searched; the width falls below `ENOUGH_WIDTH` long before."""


@dataclass(frozen=True)
class AuditSize:
    """The size of an audit set, and what it can show.

    Attributes:
        groups: number of benign and of malignant groups.
        right: how many of each are right.
        low: lower end of the exact interval of balanced accuracy over groups.
        high: upper end.
        confidence: of the interval.
        missing: benign and malignant groups that would make it `ENOUGH_WIDTH` wide, if as many of
            them are right as now.
    """

    groups: tuple[int, int]
    right: tuple[int, int]
    low: float
    high: float
    confidence: float
    missing: tuple[int, int]

    def __str__(self) -> str:
        counts = " and ".join(f"{n} {name}" for n, name in zip(self.groups, ("benign", "malignant"), strict=True))
        width = (
            f"With {counts} groups the exact {self.confidence:.0%} interval of balanced accuracy over groups goes from "
            f"{self.low:.2f} to {self.high:.2f} ({self.high - self.low:.2f} wide)"
        )
        if not any(self.missing):
            return f"{width}."
        return (
            f"{width}; about {self.missing[0]} more benign and {self.missing[1]} more malignant groups would make it "
            f"{ENOUGH_WIDTH:.2f} wide."
        )


def measure_audit(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    groups: NDArray[np.str_],
    *,
    threshold: float,
    confidence: float,
) -> AuditSize:
    """Measure how much an audit set can show of one model.

    Args:
        labels: [N] in {0, 1}.
        probabilities: of malignant, [N].
        groups: [N]; a group with tiles of both labels counts for both.
        threshold: probability from which a tile is called malignant.
        confidence: of the interval, in (0, 1).
    """
    counts = [_count_right(labels == label, probabilities, groups, threshold, label) for label in (0, 1)]
    right, total = (np.array(values) for values in zip(*counts, strict=True))
    low, high = _compute_interval(right, total, confidence)
    expected = (right + 1) / (total + 2)  # neither 0 nor 1, whatever a few groups show
    sizes = np.maximum(total[:, None], np.arange(1, _MOST_GROUPS + 1))
    low_at, high_at = _compute_interval(expected[:, None] * sizes, sizes, confidence)
    enough = int(np.argmax((high_at - low_at).mean(axis=0) <= ENOUGH_WIDTH))
    missing = sizes[:, enough] - total
    if float((high - low).mean()) <= ENOUGH_WIDTH:
        missing = np.zeros_like(total)
    return AuditSize(
        (int(total[0]), int(total[1])),
        (int(right[0]), int(right[1])),
        float(low.mean()),
        float(high.mean()),
        confidence,
        (int(missing[0]), int(missing[1])),
    )


def _count_right(
    chosen: NDArray[np.bool_],
    probabilities: NDArray[np.float64],
    groups: NDArray[np.str_],
    threshold: float,
    label: int,
) -> tuple[int, int]:
    """Count the groups of one label that are right, and all of them."""
    names, index = np.unique(groups[chosen], return_inverse=True)
    means = np.bincount(index, weights=probabilities[chosen], minlength=len(names)) / np.bincount(index)
    return int(((means >= threshold) == (label == 1)).sum()), len(names)


def _compute_interval(
    right: NDArray[np.floating] | NDArray[np.int64], total: NDArray[np.int64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the ends of the Clopper–Pearson interval of right / total, of any shape."""
    tail = (1 - confidence) / 2
    low = np.where(right > 0, beta.ppf(tail, np.maximum(right, 1e-9), total - right + 1), 0.0)
    high = np.where(right < total, beta.ppf(1 - tail, right + 1, np.maximum(total - right, 1e-9)), 1.0)
    return low, high
