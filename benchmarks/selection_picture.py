"""The picture of benchmarks/selection.py: every candidate's true accuracy and its verdict.

Run: python benchmarks/selection_picture.py CSV PNG
It redraws the picture from the table that the benchmark wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from oncoshift.evaluation.plots import OKABE_ITO

LOOKS = {"trust": (OKABE_ITO[0], "o"), "doubt": (OKABE_ITO[4], "s"), "refuse": ("0.55", "x")}
"""Colour and marker of each verdict."""


def draw(candidates: pd.DataFrame, path: Path, limits: tuple[float, float]) -> None:
    """Write the picture as a PNG.

    Args:
        candidates: One row a model, with columns target, method, balanced_accuracy and verdict.
        path: File to write, in an existing folder.
        limits: Balanced accuracy below which a model failed, and from which it is good.
    """
    targets, methods = (list(candidates[name].unique()) for name in ("target", "method"))
    figure = Figure(figsize=(3.1 * len(targets), 0.42 * len(methods) + 1.6), layout="constrained")
    rng = np.random.default_rng(0)
    for axes, target in zip(np.atleast_1d(figure.subplots(1, len(targets), sharey=True)), targets, strict=True):
        for limit in limits:
            axes.axvline(limit, color="0.85", linewidth=1.0, zorder=0)
        some = candidates[candidates["target"] == target]
        for verdict, (colour, shape) in LOOKS.items():
            rows = some[some["verdict"] == verdict]
            y = [methods.index(method) for method in rows["method"]] + rng.uniform(-0.25, 0.25, len(rows))
            axes.scatter(rows["balanced_accuracy"], y, s=22, c=colour, marker=shape, linewidths=1.0, label=verdict)
        axes.set(xlim=(-0.02, 1.02), title=target, xlabel="balanced accuracy on the target")
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    title = "verdict without labels"
    figure.legend(handles, labels, title=title, loc="outside lower center", ncols=len(LOOKS), frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(pd.read_csv(sys.argv[1]), Path(sys.argv[2]), (0.6, 0.8))
