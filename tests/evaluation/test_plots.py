"""Figures show every organ and seed, and leave no global state behind."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from oncoshift.errors import DataError
from oncoshift.evaluation.domains import evaluate_domains
from oncoshift.evaluation.plots import (
    draw_comparison_figure,
    draw_confusion_figure,
    draw_reliability_figure,
    draw_roc_figure,
)
from oncoshift.settings import EvaluateSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def predictions(gain: float = 1.0, organs: tuple[str, ...] = ("breast_ihc", "lung")) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (
            f"{organ}/{tile}",
            organ,
            f"{organ}{tile % 8}",
            tile % 2,
            1 / (1 + np.exp(-gain * (tile % 2 - rng.random()))),
            s,
        )
        for organ in organs
        for tile in range(40)
        for s in range(2)
    ]
    return pd.DataFrame(rows, columns=["tile_id", "organ", "group", "label", "probability", "seed"])


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in [*axes.texts, axes.title])


def drawn(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=40)
    return np.asarray(Image.open(buffer).convert("L"))


@pytest.mark.parametrize("make", [draw_roc_figure, draw_reliability_figure, draw_confusion_figure])
def test_figures_show_every_organ_with_its_counts_and_leave_no_global_state(make) -> None:  # type: ignore[no-untyped-def]
    figure = make(predictions())
    for organ in ("breast_ihc", "lung"):
        assert organ in texts(figure)
    assert texts(figure).count("40 tiles, 8 groups, 2 seeds") == 2
    assert drawn(figure).std() > 0
    assert plt.get_fignums() == []


def test_roc_shows_every_seed_and_their_mean_area() -> None:
    figure = draw_roc_figure(predictions(organs=("lung",)))
    assert len(figure.axes[0].lines) == 1 + 2 + 1, "chance, two seeds, their mean"
    assert "AUROC" in texts(figure)


def test_roc_says_where_there_is_no_curve() -> None:
    table = predictions()
    assert "only one class" in texts(draw_roc_figure(table[(table.label == 1) | (table.organ == "lung")]))


def test_reliability_counts_each_tile_once() -> None:
    figure = draw_reliability_figure(predictions(organs=("lung",)))
    bars = figure.axes[1].patches
    assert sum(bar.get_height() for bar in bars if isinstance(bar, Rectangle)) == pytest.approx(40)


def test_confusion_shows_shares_of_the_true_class() -> None:
    table = predictions(organs=("lung",))
    table["probability"] = np.where(table.label == 1, 0.9, 0.1)
    table.loc[
        (table.label == 1) & (table.tile_id.isin(["lung/1", "lung/3", "lung/5", "lung/7", "lung/9"])), "probability"
    ] = 0.2
    shown = texts(draw_confusion_figure(table))
    assert "100.0%\n20" in shown
    assert "25.0%\n5" in shown
    assert "75.0%\n15" in shown


def test_comparison_draws_a_dot_a_model_and_organ_and_whiskers_where_there_is_an_interval() -> None:
    settings = EvaluateSettings(bootstrap=100)
    reports = {
        name: evaluate_domains(predictions(gain), settings) for name, gain in (("source-only", 0.2), ("adapted", 4.0))
    }
    figure = draw_comparison_figure(reports)
    (axes,) = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert sorted(float(np.asarray(dot.get_xdata())[0]) for dot in dots) == sorted(
        organ.mean("balanced_accuracy") or 0.0 for report in reports.values() for organ in report.organs
    )
    assert len(axes.collections) == 2 * len(dots), "a whisker and its two ends each"
    assert "95% bootstrap interval" in axes.get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["source-only", "adapted"]
    with pytest.raises(DataError, match="1 to 6 reports"):
        draw_comparison_figure({})


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(DataError, match="no predictions"):
        draw_roc_figure(predictions().iloc[:0])
    with pytest.raises(DataError, match="no predictions"):
        draw_reliability_figure(predictions().iloc[:0])
