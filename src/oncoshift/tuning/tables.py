"""The report of a study: trials with mean and worst score, and importances of settings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from oncoshift.markdown import escape
from oncoshift.tuning.study import list_completed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncoshift.tuning.study import Trial

TOO_FEW = "no importances: they need two completed trials with different scores, and two settings"
_RELIABLE_TRIALS = 10
"""Completed trials below which importances are mostly chance."""


def to_markdown(
    title: str, trials: Sequence[Trial], keys: Sequence[str], importances: Mapping[str, float] | None
) -> str:
    """Format the report, with trials ordered by score, the best first.

    Args:
        title: first line of the report.
        trials: of the study.
        keys: dotted keys that were searched.
        importances: from `SharedStudy.compute_importances`.
    """
    rows = sorted(trials, key=lambda trial: (trial.state != "COMPLETE", -_replace_nan(trial.score), trial.number))
    several = any(len(trial.seeds) > 1 for trial in trials)
    columns = ["trial", "outcome", "mean score" if several else "score", *(["worst seed"] if several else []), *keys]
    lines = [f"**{escape(title)}**", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for trial in rows:
        worst = [format_value(min(trial.seeds)) if trial.seeds else "–"] if several else []
        values = [escape(format_value(trial.values[key])) if key in trial.values else "–" for key in keys]
        score = "–" if math.isnan(trial.score) else format_value(trial.score)
        lines.append(f"| {' | '.join([str(trial.number), trial.state.lower(), score, *worst, *values])} |")
    failed = [f"- trial {trial.number} failed: {escape(trial.error)}" for trial in rows if trial.error is not None]
    lines += ["", *failed] if failed else []
    if importances is None:
        lines += ["", f"{TOO_FEW[0].upper()}{TOO_FEW[1:]}."]
    else:
        shares = ", ".join(f"{key} {share:.2f}" for key, share in importances.items())
        complete = len(list_completed(trials))
        lines += ["", f"Importance ({describe_importances(complete)}): {shares}."]
    return "\n".join(lines) + "\n"


def describe_importances(complete: int) -> str:
    """Describe what importances mean, and whether there are enough completed trials."""
    words = f"share of the variance of {complete} scores, fANOVA"
    if complete >= _RELIABLE_TRIALS:
        return words
    return f"{words}; from fewer than {_RELIABLE_TRIALS} trials it means little"


def _replace_nan(score: float) -> float:
    """Replace NaN, which cannot be ordered, by −∞."""
    return -math.inf if math.isnan(score) else score


def format_value(value: Any) -> str:
    """Format a setting's value or a score in four significant digits; None as in YAML."""
    if value is None:
        return "null"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
