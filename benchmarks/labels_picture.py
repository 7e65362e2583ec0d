"""The picture of benchmarks/labels.py: accuracy and the gate's two errors by number of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COLOURS = {"lung": "#0969da", "colon": "#1a7f37", "breast": "#cf222e", "kidney": "#8250df"}
FLOORS = {0.6: "--", 0.7: "-"}
"""Style of the lines by floor of the gate."""


def draw_curves(figures: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw the figures that the benchmark prints, and save the picture."""
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    accuracy, passed, refused = figure.subplots(1, 3)
    for target, colour in COLOURS.items():
        rows = [row for row in figures["training"] if row["target"] == target]
        rows = [row for row in rows if row["how"] in ("prior alone", "few_labels")]
        if not rows:
            continue
        labels = [row["labels"] for row in rows]
        accuracy.plot(labels, [row["mean"] for row in rows], color=colour, marker="o", label=target)
        ends = ([row[end] for row in rows] for end in ("low", "high"))
        accuracy.fill_between(labels, *ends, color=colour, alpha=0.15, linewidth=0)
        accuracy.plot(labels, [row["tenth"] for row in rows], color=colour, linestyle=":", linewidth=1)
    accuracy.set(title="balanced accuracy (dotted: tenth percentile)", ylim=(0.35, 1.0))
    accuracy.legend(loc="lower right")
    for floor, style in FLOORS.items():
        rows = [*figures["gate"]]
        labels = [row["labels"] for row in rows]
        for axes, kind, turned in ((passed, "failed", False), (refused, "good", True)):
            shares = [row[f"{kind}_passed_{floor}"] / max(row[kind], 1) for row in rows]
            low, high = ([row[f"{kind}_interval_{floor}"][end] for row in rows] for end in (0, 1))
            if turned:
                shares, low, high = ([1 - value for value in values] for values in (shares, high, low))
            name = f"floor {floor:g}"
            axes.plot(labels, shares, color="#1f2328", linestyle=style, marker="o", label=name)
            axes.fill_between(labels, low, high, color="#1f2328", alpha=0.12, linewidth=0)
    passed.axhline(0.01, color="#cf222e", linewidth=0.8)
    passed.set(title="failed models that pass (red: 1 %)", ylim=(0, 0.05))
    refused.set(title="good models that are refused", ylim=(0, 1))
    for axes in (accuracy, passed, refused):
        axes.set_xlabel("labels")
        axes.grid(alpha=0.25)
    refused.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
