"""One picture of a study: what each trial scored, and at which values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    import pandas as pd


def study_figure(trials: pd.DataFrame) -> Figure:
    """Score by trial, then score by each tuned value; the best trial is marked.

    Args:
        trials: `TuningResult.trials`.
    """
    columns = [name for name in trials.columns if name.startswith("params_")]
    scored = trials[(trials["state"] == "COMPLETE") & trials["value"].notna()]
    figure = Figure(figsize=(3.6 * (1 + len(columns)), 3.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(columns), squeeze=False)[0]
    for ax, column in zip(axes, ["number", *columns], strict=True):
        ax.scatter(scored[column], scored["value"], color="#4477aa", s=26)
        if len(scored):
            best = scored.nlargest(1, "value")
            ax.scatter(best[column], best["value"], color="#ee6677", s=70, marker="*", label="best", zorder=3)
        if column != "number":
            ax.set_xscale("log")
        ax.set_xlabel("trial" if column == "number" else column.removeprefix("params_"))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("score (label-free, above the source floor)")
    if len(scored):
        axes[0].legend(frameon=False)
    lost = int((trials["state"] == "PRUNED").sum())
    figure.suptitle(f"{len(scored)} trials completed, {lost} pruned", fontsize=10)
    return figure
