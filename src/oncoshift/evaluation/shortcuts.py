"""Do plain measures of a tile separate its classes, and does the direction differ between organs?

A measure that separates malignant from benign tiles in the sources, but the other way round in the
target, is a shortcut: a network that leans on it calls the target's classes by each other's names.
A measure that points one way in every labelled organ may serve as an anchor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import rankdata

from oncoshift.evaluation.intervals import bootstrap_metrics
from oncoshift.evaluation.metrics import compute_metrics
from oncoshift.evaluation.resampling import TooFewGroupsError
from oncoshift.markdown import render_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANCE = 0.5
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@dataclass(frozen=True)
class Shortcuts:
    """The AUROC of each measure in each organ.

    Attributes:
        table: one row a measure and organ: measure, organ, tiles, groups, auroc, low, high; the
            ends are NaN where a class has fewer than two groups.
    """

    table: pd.DataFrame

    @property
    def directions(self) -> dict[str, str]:
        """Each measure: `flips`, `one way` or `unclear`.

        A measure flips if its interval lies above one half in one organ and below it in another. It
        points one way if all intervals lie on the same side.
        """
        found = {}
        for measure, rows in self.table.groupby("measure", sort=False):
            above, below = bool((rows["low"] > CHANCE).any()), bool((rows["high"] < CHANCE).any())
            all_clear = bool(((rows["low"] > CHANCE) | (rows["high"] < CHANCE)).all())
            found[str(measure)] = "flips" if above and below else "one way" if all_clear else "unclear"
        return found

    @property
    def header(self) -> tuple[str, ...]:
        """Header of `rows`: the measure, each organ, and the direction."""
        return ("measure", *dict.fromkeys(map(str, self.table["organ"])), "direction")

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Formatted cells: a row a measure, a column an organ, and the direction."""
        rows = []
        for measure, direction in self.directions.items():
            of = self.table[self.table["measure"] == measure]
            cells = {str(row["organ"]): _format(row) for _, row in of.iterrows()}
            rows.append((measure, *(cells.get(organ, "") for organ in self.header[1:-1]), direction))
        return tuple(rows)

    def list_measures(self, direction: str) -> list[str]:
        """List the measures of a direction, one of the values of `directions`."""
        return [measure for measure, found in self.directions.items() if found == direction]

    def to_markdown(self) -> str:
        """Render the table as Markdown."""
        return render_table(self.header, self.rows)

    def draw(self) -> Figure:
        """Draw the AUROCs with their intervals: a row a measure, a colour an organ."""
        directions = self.directions
        organs = list(dict.fromkeys(self.table["organ"]))
        figure = Figure(figsize=(7.4, 1.2 + 0.62 * len(directions)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for row, measure in enumerate(directions):
            for number, organ in enumerate(organs):
                values = self.table[(self.table["measure"] == measure) & (self.table["organ"] == organ)]
                if values.empty:
                    continue
                point, low, high = values.iloc[0][["auroc", "low", "high"]].to_numpy(np.float64)
                height, colour = row + 0.6 * ((number + 0.5) / len(organs) - 0.5), _COLOURS[number % len(_COLOURS)]
                axes.plot([low, high], [height, height], color=colour, linewidth=1.6)
                label = organ if row == 0 else None
                axes.plot(point, height, "o", color=colour, markersize=5, label=label, clip_on=False)
        axes.axvline(CHANCE, color="0.6", linewidth=1)
        axes.set_yticks(range(len(directions)), [f"{name}\n({way})" for name, way in directions.items()], fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("AUROC for malignant, with interval over groups")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
        figure.legend(loc="outside upper center", ncols=len(organs), frameon=False)
        return figure


def audit_shortcuts(
    measures: pd.DataFrame,
    organs: NDArray[np.str_],
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Shortcuts:
    """Compute the AUROC of each measure for malignant in each organ, with intervals over groups.

    Args:
        measures: one row a tile, one column a measure.
        organs: [N].
        labels: [N], 0 benign, 1 malignant.
        groups: [N].
        resamples: of the bootstrap.
        confidence: of the intervals, in (0, 1).

    Returns:
        The organs in alphabetical order; one with tiles of one class alone is left out.
    """
    rows = []
    for measure in measures.columns:
        for organ in sorted(set(organs.tolist())):
            of = organs == organ
            if len(np.unique(labels[of])) < 2:
                continue
            values = measures[measure].to_numpy(np.float64)[of]
            scores = rankdata(values) / (len(values) + 1)  # AUROC depends on the order alone
            rows.append((measure, organ, int(of.sum()), len(np.unique(groups[of])),
                         *_measure_auroc(labels[of], scores, groups[of], resamples, confidence)))  # fmt: skip
    return Shortcuts(pd.DataFrame(rows, columns=["measure", "organ", "tiles", "groups", "auroc", "low", "high"]))


def _measure_auroc(
    labels: NDArray[np.int64], scores: NDArray[np.float64], groups: NDArray[np.str_], resamples: int, confidence: float
) -> tuple[float, float, float]:
    try:
        found = bootstrap_metrics(labels, scores, groups, resamples=resamples, confidence=confidence, names=("auroc",))[
            "auroc"
        ]
    except TooFewGroupsError:
        auroc = compute_metrics(labels, scores, groups).auroc
        return np.nan if auroc is None else auroc, np.nan, np.nan
    return found.point, found.low, found.high


def _format(row: pd.Series) -> str:
    interval = "" if np.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['auroc']:.2f}{interval}"
