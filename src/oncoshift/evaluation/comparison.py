"""Two models or methods on the same tiles: paired differences over groups, and McNemar's test.

The differences are of means over seeds, with intervals that resample groups and seeds. McNemar's
exact test compares the errors of the seeds' mean probabilities: under the null hypothesis, of the
tiles on which only one of the two is right, each is right equally often. It assumes independent
tiles; tiles of a group are not, so its result for groups is the one to trust.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest

from oncoshift.errors import DataError
from oncoshift.evaluation.domains import aggregate_groups, split_by_organ
from oncoshift.evaluation.intervals import Interval, bootstrap_differences
from oncoshift.evaluation.metrics import compute_metrics
from oncoshift.evaluation.resampling import TooFewGroupsError
from oncoshift.evaluation.weighted import METRIC_NAMES, TITLES, MetricName
from oncoshift.markdown import escape

if TYPE_CHECKING:
    import pandas as pd

    from oncoshift.evaluation.domains import OrganPredictions
    from oncoshift.settings import EvaluateSettings


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of the errors of A and B.

    Attributes:
        only_a: number of tiles, or groups, that only A classifies correctly.
        only_b: number that only B classifies correctly.
        p_value: two-sided, of the exact binomial test.
    """

    only_a: int
    only_b: int
    p_value: float

    def __str__(self) -> str:
        return f"only A right {self.only_a}, only B right {self.only_b}, p = {self.p_value:.2g}"


@dataclass(frozen=True)
class MetricPair:
    """A metric of A and of B.

    Attributes:
        a: mean over the seeds of A.
        b: mean over the seeds of B.
        difference: B − A, paired; None if there are too few groups for an interval.
    """

    a: float
    b: float
    difference: Interval | None


@dataclass(frozen=True)
class Comparison:
    """Runs A and B on the tiles of one organ that both predicted.

    Attributes:
        a: name of A.
        b: name of B.
        organ: name of the organ.
        tiles: number of common tiles.
        groups: number of their groups.
        seeds: number of seeds of A and of B.
        metrics: pairs by metric.
        tile_test: McNemar's test of tiles.
        group_test: McNemar's test of groups.
        note: why there are no intervals; empty if there are.
    """

    a: str
    b: str
    organ: str
    tiles: int
    groups: int
    seeds: tuple[int, int]
    metrics: dict[MetricName, MetricPair]
    tile_test: McNemar
    group_test: McNemar
    note: str

    @property
    def title(self) -> str:
        """The title of the table."""
        counts = f"{self.tiles:,} common test tiles, {self.groups} groups, {self.seeds[0]} and {self.seeds[1]} seeds"
        return f"{self.organ}: {counts}"

    def list_rows(self) -> list[tuple[str, str, str, str]]:
        """List the metrics as rows of title, A, B, and B − A with its interval."""
        return [
            (
                TITLES[name],
                f"{pair.a:.3f}",
                f"{pair.b:.3f}",
                f"{pair.b - pair.a:+.3f}" if pair.difference is None else pair.difference.format_signed(),
            )
            for name, pair in self.metrics.items()
        ]

    def list_notes(self) -> list[str]:
        """List the lines below the table: McNemar's tests, and why there are no intervals."""
        tests = [f"McNemar, groups: {self.group_test}", f"McNemar, tiles as if independent: {self.tile_test}"]
        return tests + ([self.note] if self.note else [])

    def to_markdown(self) -> str:
        """Format the comparison as Markdown."""
        head = [f"A: {escape(self.a)}", "", f"B: {escape(self.b)}", "", f"**{escape(self.title)}**", ""]
        table = ["| metric | A | B | B − A |", "|---|---|---|---|"]
        table += [f"| {' | '.join(row)} |" for row in self.list_rows()]
        return "\n".join([*head, *table, "", *(f"- {escape(note)}" for note in self.list_notes())]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return asdict(self)


def compare_predictions(
    a: tuple[str, pd.DataFrame], b: tuple[str, pd.DataFrame], organ: str, settings: EvaluateSettings
) -> Comparison:
    """Compare two runs on the tiles of an organ that both predicted.

    Args:
        a: name and predictions, with the columns of `evaluation.domains.PREDICTION_COLUMNS`.
        b: the same of the other run.
        organ: name of the organ.
        settings: section `evaluate`.

    Raises:
        DataError: there is no common tile, or a tile's label or group differs between the runs.
    """
    tables = _select_common(a, b, organ)
    first, second = (split_by_organ(table)[0] for table in tables)
    seeds = len(first.seeds), len(second.seeds)
    differences: dict[MetricName, Interval] = {}
    note = ""
    try:
        differences = bootstrap_differences(
            first.labels,
            second.probabilities,
            first.probabilities,
            first.groups,
            resamples=settings.bootstrap,
            confidence=settings.confidence,
            thresholds=(second.thresholds, first.thresholds),
            bins=settings.calibration_bins,
            same_seeds=np.array_equal(first.seeds, second.seeds),
        )
    except TooFewGroupsError as error:
        note = str(error)
    means = [_compute_means(tiles, settings.calibration_bins) for tiles in (first, second)]
    return Comparison(
        a=a[0],
        b=b[0],
        organ=organ,
        tiles=len(first.labels),
        groups=len(np.unique(first.groups)),
        seeds=seeds,
        metrics={
            name: MetricPair(means[0][name], means[1][name], differences.get(name))
            for name in METRIC_NAMES
            if name in means[0] and name in means[1]
        },
        tile_test=compute_mcnemar(first, second),
        group_test=compute_mcnemar(*(split_by_organ(aggregate_groups(table))[0] for table in tables)),
        note=note,
    )


def compute_mcnemar(a: OrganPredictions, b: OrganPredictions) -> McNemar:
    """Compute McNemar's exact test of the errors of the seeds' mean probabilities.

    Args:
        a: predictions of A.
        b: predictions of B for the same tiles, in the same order.
    """
    right = [(tiles.probabilities.mean(axis=0) >= tiles.thresholds.mean()) == (tiles.labels == 1) for tiles in (a, b)]
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    discordant = only_a + only_b
    return McNemar(only_a, only_b, float(binomtest(only_a, discordant).pvalue) if discordant else 1.0)


def _select_common(a: tuple[str, pd.DataFrame], b: tuple[str, pd.DataFrame], organ: str) -> list[pd.DataFrame]:
    """Select the rows of an organ's tiles that are in both tables.

    Raises:
        DataError: see `compare_predictions`.
    """
    tables = [table[table["organ"] == organ] for _, table in (a, b)]
    common = set(tables[0]["tile_id"]) & set(tables[1]["tile_id"])
    if not common:
        counts = " and ".join(
            f"{table['tile_id'].nunique()} of {name}" for (name, _), table in zip((a, b), tables, strict=True)
        )
        raise DataError(
            f"no test tile of {organ} in common ({counts}): compare runs of one target and one split "
            "(settings `target`, `ingest` and `split`)"
        )
    tables = [table[table["tile_id"].isin(common)] for table in tables]
    facts = [table.drop_duplicates("tile_id").set_index("tile_id")[["label", "group"]].sort_index() for table in tables]
    different = facts[0].index[(facts[0] != facts[1]).any(axis=1)]
    if len(different):
        raise DataError(
            f"{len(different)} common tiles of {organ} have another label or group in {b[0]} than in {a[0]}, for "
            f"example {different[0]}: the data set has changed between them; retrain one on the data of the other"
        )
    return tables


def _compute_means(tiles: OrganPredictions, bins: int) -> dict[MetricName, float]:
    """Compute each metric's mean over seeds; without those that need an absent class."""
    models = zip(tiles.probabilities, tiles.thresholds, strict=True)
    every = [compute_metrics(tiles.labels, row, tiles.groups, threshold, bins).as_dict() for row, threshold in models]
    return {
        name: float(np.mean([metrics[name] for metrics in every]))
        for name in METRIC_NAMES
        if all(metrics[name] is not None for metrics in every)
    }
