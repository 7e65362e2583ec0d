"""Limits of the anchors' correlation, set on two targets and tested on the others."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from oncoshift.settings import SelectSettings

MARGIN = 0.1
"""How far above the failed models of two targets the limit of trust is set."""


def anchor_limits(rows: pd.DataFrame, rule: SelectSettings, classes: tuple[float, float]) -> list[dict[str, Any]]:
    """Set the limit of trust of the anchors on two targets, and test it on the other two.

    The limit is `MARGIN` above the greatest least correlation of a failed model of the two targets.
    The row named "default" tests the limit of the settings on all.

    Args:
        rows: One candidate each, with its target, balanced accuracy and anchors' correlations.
        rule: The settings of the verdict.
        classes: Balanced accuracy below which a model failed, and from which it is good.
    """
    worst, best = classes
    least = rows[[name for name in rows.columns if name.startswith("anchor_")]].min(axis=1)
    failed, good = rows["balanced_accuracy"] < worst, rows["balanced_accuracy"] >= best
    inverted = rows["balanced_accuracy"] < 1 - worst
    limits = {
        " + ".join(pair): float(least[failed & rows["target"].isin(pair)].max()) + MARGIN
        for pair in combinations(dict.fromkeys(rows["target"]), 2)
    }
    found = []
    for name, limit in {**limits, "default": rule.trust_correlation}.items():
        tested = ~rows["target"].isin(name.split(" + "))
        trusted = tested & (least >= limit)
        refused = tested & (least < rule.refuse_correlation)
        found.append(
            {
                "set_on": name,
                "limit": round(limit, 3),
                "failed": int((failed & tested).sum()),
                "failed_trusted": int((failed & trusted).sum()),
                "good": int((good & tested).sum()),
                "good_trusted": int((good & trusted).sum()),
                "least_accurate_trusted": round(float(rows["balanced_accuracy"][trusted].min()), 3),
                "inverted": int((inverted & tested).sum()),
                "inverted_named": int((inverted & refused).sum()),
                "good_refused": int((good & refused).sum()),
            }
        )
    return found
