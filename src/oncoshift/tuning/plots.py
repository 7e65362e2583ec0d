"""Plots of a study: its history, each setting alone, all settings together, importances.

Figures are made without pyplot; save one with `figure.savefig`. optuna.visualization is not used,
because it leaves out pruned trials, the spread over seeds and the searched range, truncates names
of settings, and sets matplotlib's style for the whole process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from oncoshift.settings import Choices, Range
from oncoshift.tuning.study import find_best, list_completed
from oncoshift.tuning.tables import TOO_FEW, describe_importances, format_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from oncoshift.tuning.space import Space
    from oncoshift.tuning.study import Trial

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe & Ito 2008
_PRUNED: dict[str, Any] = {"marker": "x", "color": "0.6", "s": 26, "linewidths": 1.2, "label": "pruned"}
_COLUMNS = 4
_COLOURS: Colormap = colormaps["viridis"]


@dataclass(frozen=True)
class StudyResults:
    """The results of a study to draw.

    Attributes:
        trials: all of the study.
        space: that was searched.
        score: name of the score, for labels.
    """

    trials: Sequence[Trial]
    space: Space
    score: str

    @property
    def complete(self) -> list[Trial]:
        """Trials with a score that counts."""
        return list_completed(self.trials)

    @property
    def pruned(self) -> list[Trial]:
        """Pruned trials that had a score."""
        return [trial for trial in self.trials if trial.state == "PRUNED" and not math.isnan(trial.score)]

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score."""
        return find_best(self.trials)

    @property
    def counts(self) -> str:
        """Number of trials by outcome, in words."""
        kinds = {"completed": len(self.complete), "pruned": sum(trial.state == "PRUNED" for trial in self.trials)}
        kinds["failed"] = sum(trial.state == "FAIL" for trial in self.trials)
        return ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count) or "no trial yet"


def draw_history(study: StudyResults) -> Figure:
    """Draw the score of each trial, its range over several seeds, and the best so far."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    _draw_scatter(axes, study, lambda trial: trial.number)
    so_far = -math.inf
    steps = [(trial.number, so_far := max(so_far, trial.score)) for trial in _sort_by_number(study.complete)]
    if steps:
        axes.step(*zip(*steps, strict=True), where="post", color=_BLUE, linewidth=1.0, alpha=0.6, label="best so far")
    ranges = [(trial.number, min(trial.seeds), max(trial.seeds)) for trial in study.complete if len(trial.seeds) > 1]
    if ranges:
        axes.vlines(*zip(*ranges, strict=True), color=_BLUE, linewidth=1.0, alpha=0.5, label="worst to best seed")
    axes.set_xlabel("trial")
    axes.set_xlim(-0.7, max((trial.number for trial in study.trials), default=0) + 0.7)
    axes.set_ylabel(study.score)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_title(study.counts, fontsize=10)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    return figure


def draw_slices(study: StudyResults) -> Figure:
    """Draw the score against each setting alone, on the scales of the search."""
    columns = min(_COLUMNS, len(study.space))
    rows = -(-len(study.space) // columns)
    figure = Figure(figsize=(max(4.2, 2.8 * columns), 0.5 + 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, (key, item) in zip(panels, study.space.items(), strict=False):
        _draw_scatter(axes, study, lambda trial, key=key, item=item: _compute_height(item, trial.values[key]))
        heights, words = zip(*_list_marks(item), strict=True)
        axes.set_xticks(heights, words)
        axes.set_xlim(-0.2, 1.2)
        axes.set_xlabel(key)
    for axes in panels[len(study.space) :]:
        axes.set_axis_off()
    for axes in panels[::columns]:
        axes.set_ylabel(study.score)
    figure.suptitle(study.counts, fontsize=10)
    return figure


def draw_importances(study: StudyResults, importances: Mapping[str, float] | None) -> Figure:
    """Draw a bar for each setting, the greatest first, or a sentence if trials are too few."""
    figure = Figure(figsize=(6.4, 1.4 + 0.32 * len(importances or ())), layout="constrained")
    axes = figure.subplots()
    if importances is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, TOO_FEW.replace(": ", ":\n"), ha="center", va="center", transform=axes.transAxes)
        return figure
    names, shares = list(importances)[::-1], list(importances.values())[::-1]
    bars = axes.barh(names, shares, color=_BLUE, height=0.6)
    axes.bar_label(bars, [f"{share:.2f}" for share in shares], padding=3, fontsize=8)
    axes.set_xlim(0, max(shares) * 1.15)
    axes.set_xlabel(describe_importances(len(study.complete)).replace("; ", "\n"))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_parallel(study: StudyResults) -> Figure:
    """Draw each trial as a line through its values, coloured by score.

    The best trial is thick, pruned ones are dashed.
    """
    keys = list(study.space)
    figure = Figure(figsize=(max(6.0, 1.6 * (len(keys) + 1)), 4.2), layout="constrained")
    axes = figure.subplots()
    scores = [trial.score for trial in study.complete] or [0.0]
    low, high = min(scores), max(scores)
    if low == high:
        low, high = low - 0.5, high + 0.5
    scale = Normalize(low, high)
    for trial in study.pruned:
        heights = [_compute_height(study.space[key], trial.values[key]) for key in keys]
        axes.plot(range(len(keys)), heights, color="0.75", linewidth=0.8, linestyle="--", zorder=1)
    for trial in sorted(study.complete, key=lambda trial: trial.score):
        heights = [*(_compute_height(study.space[key], trial.values[key]) for key in keys), scale(trial.score)]
        width = 3.0 if trial == study.best else 1.2
        axes.plot(range(len(keys) + 1), heights, color=_COLOURS(scale(trial.score)), linewidth=width, zorder=2)
    for position, key in enumerate(keys):
        _draw_scale(axes, position, _list_marks(study.space[key]))
    _draw_scale(axes, len(keys), [(0.0, format_value(low)), (1.0, format_value(high))])
    axes.set_xticks(range(len(keys) + 1), [key.replace(".", ".\n") for key in keys] + ["score"])
    axes.set_xlim(-0.3, len(keys) + 0.6)
    axes.set_ylim(-0.06, 1.06)
    axes.yaxis.set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(study.counts, fontsize=10)
    figure.colorbar(ScalarMappable(scale, _COLOURS), ax=axes, label=study.score, pad=0.02)
    return figure


def _draw_scatter(axes: Axes, study: StudyResults, x: Any) -> None:
    complete, pruned, best = study.complete, study.pruned, study.best
    if pruned:
        axes.scatter([x(trial) for trial in pruned], [trial.score for trial in pruned], **_PRUNED)
    axes.scatter([x(trial) for trial in complete], [trial.score for trial in complete], color=_BLUE, s=24, alpha=0.8)
    if best is not None:
        axes.scatter([x(best)], [best.score], color=_ORANGE, marker="*", s=110, zorder=3, label="best")
    axes.grid(alpha=0.3)


def _sort_by_number(trials: Sequence[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: trial.number)


def _compute_height(item: Range | Choices, value: Any) -> float:
    """Compute a value's position in the searched range, 0 to 1."""
    if isinstance(item, Choices):
        return item.values.index(value) / max(len(item.values) - 1, 1)
    if item.log:
        return math.log(value / item.low) / math.log(item.high / item.low)
    return float((value - item.low) / (item.high - item.low))


def _list_marks(item: Range | Choices) -> list[tuple[float, str]]:
    """List positions and labels of a scale's ticks: every choice, or both ends and the middle."""
    if isinstance(item, Choices):
        return [(_compute_height(item, value), format_value(value)) for value in item.values]
    middle = math.sqrt(item.low * item.high) if item.log else (item.low + item.high) / 2
    return [(_compute_height(item, value), f"{value:.2g}") for value in (item.low, middle, item.high)]


def _draw_scale(axes: Axes, position: float, marks: Sequence[tuple[float, str]]) -> None:
    axes.axvline(position, 0.05, 0.95, color="0.4", linewidth=0.8, zorder=0)
    for height, words in marks:
        axes.plot([position - 0.02, position + 0.02], [height, height], color="0.4", linewidth=0.8)
        axes.annotate(
            words, (position, height), (4, 0), textcoords="offset points", va="center", fontsize=7, color="0.15",
            zorder=4, bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        )  # fmt: skip
