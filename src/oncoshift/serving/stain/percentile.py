"""Exact percentiles without a full sort: count into bins, then sort the one bin that matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BINS = 2048


def rank(n: int, percent: float) -> tuple[int, float]:
    """Return a percentile's index and fraction among n sorted numbers, as in numpy.percentile."""
    position = percent / 100 * (n - 1)
    below = int(position)
    return below, position - below


def percentile(values: NDArray[np.float32], percent: float) -> float:
    """Compute numpy.percentile(values, percent) of [n] finite numbers, n ≥ 1, by selection."""
    below, share = rank(len(values), percent)
    (low, high), *_ = neighbours(values, np.array([below]))
    return between(float(low), float(high), share)


def between(low: float, high: float, share: float) -> float:
    """Interpolate linearly, rounded as in NumPy."""
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


@compiled
def neighbours(values: NDArray[np.float32], ranks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return sorted `values` [n] at `ranks` and after them (or the last), [len(ranks), 2]."""
    n = len(values)
    low, high = values[0], values[0]
    for i in range(n):
        low = min(low, values[i])
        high = max(high, values[i])
    found = np.full((len(ranks), 2), low, np.float32)
    if not high > low:
        return found
    scale = np.float32(_BINS - 1) / (high - low)
    bins = np.empty(n, np.int16)
    for i in range(n):
        bins[i] = np.int16((values[i] - low) * scale)
    counts = np.zeros(_BINS, np.int64)
    for i in range(n):
        counts[np.uint16(bins[i])] += 1
    for r in range(len(ranks)):
        wanted = ranks[r]
        first, before = 0, 0
        while before + counts[first] <= wanted:
            before += counts[first]
            first += 1
        last, upto = first, before + counts[first]
        while upto <= min(wanted + 1, n - 1):
            last += 1
            upto += counts[last]
        members = np.empty(upto - before, np.float32)
        k = 0
        for i in range(n):
            if first <= bins[i] <= last:
                members[k] = values[i]
                k += 1
        members.sort()
        found[r] = members[wanted - before], members[min(wanted + 1, n - 1) - before]
    return found
