"""The share of attribution on nuclei, compared with the share of area that nuclei cover."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pandas as pd

from oncoshift.data.tables import LABELS
from oncoshift.errors import DataError
from oncoshift.evaluation.intervals import Interval, bootstrap_ratio
from oncoshift.evaluation.resampling import TooFewGroupsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class _Bootstrap(TypedDict):
    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True)
class NucleiShare:
    """The share of attribution on nuclei, tile by tile.

    Attributes:
        share: float64 [N] in [0, 1], of |attribution|; NaN where a tile has no attribution at all.
        area: float64 [N] in [0, 1], of the tile's pixels that are nuclei.
        enrichment: float64 [N], share / area; 1 is what chance gives, NaN where there are no
            nuclei.
    """

    share: NDArray[np.float64]
    area: NDArray[np.float64]
    enrichment: NDArray[np.float64]


@dataclass(frozen=True)
class NucleiSummary:
    """Nuclei shares over many tiles.

    Attributes:
        tiles: how many have nuclei and attribution; the others are left out.
        share: mean share of |attribution| on nuclei; NaN without tiles.
        area: mean share of area; NaN without tiles.
        enrichment: ratio of the two means, robust to single tiles with few nuclei; NaN without
            tiles.
        interval: of the enrichment, by bootstrap over groups; None without groups or with fewer
            than two.
    """

    tiles: int
    share: float
    area: float
    enrichment: float
    interval: Interval | None


@dataclass(frozen=True)
class NucleiComparison:
    """Nuclei shares of two models on the same tiles.

    Tiles without nuclei, or without attribution by either model, are left out.

    Attributes:
        tiles: how many there are.
        groups: of these tiles.
        first: summary of the first model.
        second: summary of the second model.
        share: mean share of the second model minus the first's, with its interval by a bootstrap
            over groups that draws both models' tiles together; None with fewer than two groups.
        enrichment: the same difference in enrichment.
    """

    tiles: int
    groups: int
    first: NucleiSummary
    second: NucleiSummary
    share: Interval | None
    enrichment: Interval | None


def compute_attribution_share(values: NDArray[np.float32], masks: NDArray[np.bool_]) -> NucleiShare:
    """Compute the share of |attribution| on nuclei for each tile.

    Args:
        values: [N, S, S], signed.
        masks: bool [N, S, S], True on nuclei.

    Raises:
        DataError: the shapes differ or the masks are not boolean.
    """
    if values.shape != masks.shape or values.ndim != 3 or masks.dtype != np.bool_:
        raise DataError(f"expected values and bool masks [N, S, S], got {values.shape} and {masks.dtype} {masks.shape}")
    magnitude = np.abs(values.astype(np.float64))
    total = magnitude.sum(axis=(1, 2))
    share = _divide((magnitude * masks).sum(axis=(1, 2)), total)
    area = masks.mean(axis=(1, 2))
    return NucleiShare(share, area, _divide(share, area))


def summarise(
    shares: NucleiShare,
    groups: NDArray[np.str_] | None = None,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> NucleiSummary:
    """Summarise shares: their means, and the enrichment with its interval.

    Args:
        shares: of N tiles.
        groups: [N], or None for no interval.
        resamples: of the bootstrap over groups.
        confidence: in (0, 1).
        seed: of the bootstrap.
    """
    usable = np.isfinite(shares.enrichment)
    if not usable.any():
        return NucleiSummary(0, np.nan, np.nan, np.nan, None)
    share, area = shares.share[usable], shares.area[usable]
    interval = None
    if groups is not None:
        try:
            interval = bootstrap_ratio(
                share, area, groups[usable], resamples=resamples, confidence=confidence, seed=seed
            )
        except TooFewGroupsError:
            interval = None
    return NucleiSummary(
        int(usable.sum()), float(share.mean()), float(area.mean()), float(share.sum() / area.sum()), interval
    )


def compare(
    first: NucleiShare,
    second: NucleiShare,
    groups: NDArray[np.str_],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> NucleiComparison:
    """Compare two models' shares, tile by tile.

    Args:
        first: of N tiles.
        second: of the same tiles, with the same nuclei.
        groups: [N].
        resamples: of the bootstrap over groups.
        confidence: in (0, 1).
        seed: of the bootstrap.

    Raises:
        DataError: numbers of tiles, or areas of nuclei, differ.
    """
    if not first.area.shape == second.area.shape == groups.shape or not np.allclose(first.area, second.area):
        raise DataError("two models can be compared on the same tiles alone, and with the same nuclei")
    usable = np.isfinite(first.enrichment) & np.isfinite(second.enrichment)
    one, other = (NucleiShare(*(values[usable] for values in vars(each).values())) for each in (first, second))
    named = groups[usable]
    difference = other.share - one.share
    how: _Bootstrap = {"resamples": resamples, "confidence": confidence, "seed": seed}
    several = len(np.unique(named)) > 1
    return NucleiComparison(
        int(usable.sum()),
        len(np.unique(named)),
        summarise(one, named, **how),
        summarise(other, named, **how),
        bootstrap_ratio(difference, np.ones_like(difference), named, **how) if several else None,
        bootstrap_ratio(difference, one.area, named, **how) if several else None,
    )


def read_shares(table: pd.DataFrame) -> NucleiShare:
    """Read the shares of `Explanation.table`, in its order."""
    return NucleiShare(*(table[column].to_numpy(float) for column in ("nuclei_share", "nuclei_area", "enrichment")))


def tabulate_nuclei(tables: Mapping[str, pd.DataFrame], *, seed: int = 0) -> pd.DataFrame:
    """Tabulate the share of attribution on nuclei by model and class, with intervals over groups.

    Args:
        tables: `Explanation.table` by the name of the model.
        seed: of the bootstrap.

    Returns:
        Columns model, class, tiles, groups, nuclei_share, nuclei_area, enrichment, low, high; NaN
        where there is no value. Classes are labels or, where none are given, calls.
    """
    rows = []
    for (model, table), (number, name) in product(tables.items(), enumerate(LABELS)):
        part = table[table["label" if "label" in table else "called"] == number]
        shares = read_shares(part)
        summary = summarise(shares, part["group"].to_numpy(str), seed=seed)
        ends = (summary.interval.low, summary.interval.high) if summary.interval else (np.nan, np.nan)
        groups = part["group"][np.isfinite(shares.enrichment)].nunique()
        rows.append((model, name, summary.tiles, groups, summary.share, summary.area, summary.enrichment, *ends))
    names = ["model", "class", "tiles", "groups", "nuclei_share", "nuclei_area", "enrichment", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def _divide(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide; NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)
