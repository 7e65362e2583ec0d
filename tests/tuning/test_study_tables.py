"""A study is written in words and as a preset."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from oncoshift.settings import Settings, flatten, load_settings
from oncoshift.tuning.preset import format_preset
from oncoshift.tuning.study import Trial
from oncoshift.tuning.tables import to_markdown

if TYPE_CHECKING:
    from pathlib import Path


def trial(number: int, state: str, score: float, *seeds: float, error: str | None = None, **values: Any) -> Trial:
    return Trial(number, state, values, score, seeds, error, None)


def test_the_report_orders_trials_by_mean_and_shows_the_worst_seed() -> None:
    trials = (
        trial(0, "COMPLETE", 0.5, 0.75, 0.25, lr=0.012345678, ema=None),
        trial(1, "PRUNED", 0.625, lr=0.1, ema=0.99),
        trial(2, "FAIL", math.nan, error="loss is not finite", lr=1.0, ema=0.99),
        trial(3, "COMPLETE", 0.5625, 0.625, 0.5, lr=0.02, ema=0.99),
        trial(4, "PRUNED", 0.75, lr=0.2, ema=0.99),
    )
    text = to_markdown("Study", trials, ["lr", "ema"], {"lr": 0.75, "ema": 0.25})
    assert text.splitlines()[2:10] == [
        "| trial | outcome | mean score | worst seed | lr | ema |",
        "|---|---|---|---|---|---|",
        "| 3 | complete | 0.5625 | 0.5 | 0.02 | 0.99 |",
        "| 0 | complete | 0.5 | 0.25 | 0.01235 | null |",
        "| 4 | pruned | 0.75 | – | 0.2 | 0.99 |",
        "| 1 | pruned | 0.625 | – | 0.1 | 0.99 |",
        "| 2 | fail | – | – | 1 | 0.99 |",
        "",
    ]
    assert "- trial 2 failed: loss is not finite" in text
    assert text.endswith(
        "Importance (share of the variance of 2 scores, fANOVA; from fewer than 10 trials it means little): "
        "lr 0.75, ema 0.25.\n"
    )


def test_importances_of_enough_trials_need_no_warning() -> None:
    """Ten completed ones are enough; pruned ones tell nothing about importance."""
    trials = [trial(number, "COMPLETE", number / 10, number / 10, lr=0.1, ema=0.9) for number in range(10)]
    shares = {"lr": 0.75, "ema": 0.25}
    assert "(share of the variance of 10 scores, fANOVA): lr" in to_markdown("Study", trials, ["lr"], shares)
    fewer = [*trials[1:], trial(0, "PRUNED", 0.1, lr=0.1, ema=0.9)]
    assert "of 9 scores, fANOVA; from fewer than 10" in to_markdown("Study", fewer, ["lr"], shares)


def test_with_one_seed_there_is_no_worst_and_without_importances_a_sentence() -> None:
    text = to_markdown("Study", (trial(0, "COMPLETE", 0.5, 0.5, lr=0.1),), ["lr"], None)
    assert "| trial | outcome | score | lr |" in text
    assert text.endswith("\nNo importances: they need two completed trials with different scores, and two settings.\n")


def test_a_preset_is_read_back_as_it_was_meant(tmp_path: Path) -> None:
    values = {"train.lr": 1e-05, "train.ema": None, "dann.schedule": "paper", "dann.hidden": 64, "target": "skin"}
    path = tmp_path / "best.yaml"
    path.write_text(format_preset(values, ("Where from.", "λ ← data: [x]")), encoding="utf-8")
    assert path.read_text(encoding="utf-8").startswith("# Where from.\n# λ ← data: [x]\n")
    assert flatten(load_settings(preset=str(path))) == flatten(Settings()) | values
