"""Pictures of a study place everything correctly, for many trials and for none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from oncoshift.settings import Choices, Range
from oncoshift.tuning.plots import StudyResults, draw_history, draw_importances, draw_parallel, draw_slices
from oncoshift.tuning.study import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from oncoshift.tuning.space import Space

SPACE: Space = {
    "train.lr": Range(1e-4, 1e-2, log=True),
    "train.ema": Choices((None, 0.9)),
    "model.dropout": Range(0.0, 0.5),
}


def trial(number: int, state: str, score: float, lr: float, ema: float | None, dropout: float) -> Trial:
    seeds = (score - 0.125, score + 0.125) if state == "COMPLETE" else ()
    values = {"train.lr": lr, "train.ema": ema, "model.dropout": dropout}
    return Trial(number, state, values, score, seeds, None, None)


STUDY = StudyResults(
    (
        trial(0, "COMPLETE", 0.25, 1e-3, None, 0.5),
        trial(1, "COMPLETE", 0.75, 1e-4, 0.9, 0.0),
        trial(2, "PRUNED", 0.125, 1e-2, None, 0.25),
        trial(3, "FAIL", math.nan, 1e-2, 0.9, 0.25),
        trial(4, "COMPLETE", 0.5, 1e-2, 0.9, 0.125),
    ),
    SPACE,
    "information maximisation",
)
NONE, ONE = (StudyResults(STUDY.trials[:count], SPACE, "score") for count in (0, 1))


def points(axes: Axes, label: str | None = None) -> list[tuple[float, float]]:
    """List the points of the scatter with a label, or with None of the unlabelled one."""
    wanted = [each for each in axes.collections if (str(each.get_label()).startswith("_")) == (label is None)]
    (found,) = [each for each in wanted if label in (None, each.get_label()) and len(np.asarray(each.get_offsets()))]
    return [(round(float(x), 6), float(y)) for x, y in np.asarray(found.get_offsets())]


def test_history_shows_the_best_so_far_and_the_range_of_seeds() -> None:
    (axes,) = draw_history(STUDY).axes
    (line,) = axes.lines
    assert np.asarray(line.get_xydata()).tolist() == [[0, 0.25], [1, 0.75], [4, 0.75]]
    (ranges,) = [each for each in axes.collections if hasattr(each, "get_segments")]
    spans = [segment.tolist() for segment in ranges.get_segments()]
    assert spans == [[[0, 0.125], [0, 0.375]], [[1, 0.625], [1, 0.875]], [[4, 0.375], [4, 0.625]]]
    assert axes.get_title() == "3 completed, 1 pruned, 1 failed"


def test_slices_stand_on_the_scales_of_the_search() -> None:
    panels = draw_slices(STUDY).axes
    assert [axes.get_xlabel() for axes in panels] == list(SPACE)
    lr, ema, dropout = panels
    assert [text.get_text() for text in lr.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    assert points(lr) == [(0.5, 0.25), (0.0, 0.75), (1.0, 0.5)]
    assert points(lr, "pruned") == [(1.0, 0.125)]
    assert points(lr, "best") == [(0.0, 0.75)]
    assert [text.get_text() for text in ema.get_xticklabels()] == ["null", "0.9"]
    assert points(ema) == [(0.0, 0.25), (1.0, 0.75), (1.0, 0.5)]
    assert points(dropout) == [(1.0, 0.25), (0.0, 0.75), (0.25, 0.5)]


def test_parallel_lines_run_through_values_to_the_score() -> None:
    axes, _ = draw_parallel(STUDY).axes
    lines = {
        line.get_linewidth(): np.asarray(line.get_ydata()).tolist()
        for line in axes.lines
        if len(np.asarray(line.get_xdata())) > 2
    }
    assert lines[3.0] == pytest.approx([0.0, 1.0, 0.0, 1.0]), "the best is thick"
    assert lines[0.8] == pytest.approx([1.0, 0.0, 0.5]), "a pruned one has no score of its own"
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "train.\nlr", "train.\nema", "model.\ndropout", "score",
    ]  # fmt: skip


def test_importances_are_bars_or_a_sentence() -> None:
    (axes,) = draw_importances(STUDY, {"train.lr": 0.75, "model.dropout": 0.25}).axes
    assert [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)] == [0.25, 0.75]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["model.dropout", "train.lr"], "greatest on top"
    assert axes.get_xlabel().splitlines() == [
        "share of the variance of 3 scores, fANOVA", "from fewer than 10 trials it means little",
    ]  # fmt: skip
    (axes,) = draw_importances(STUDY, None).axes
    assert "they need two completed trials" in axes.texts[0].get_text()


@pytest.mark.parametrize("study", [NONE, ONE])
def test_few_trials_are_drawn_all_the_same(study: StudyResults) -> None:
    for figure in (draw_history(study), draw_slices(study), draw_parallel(study)):
        figure.canvas.draw()
