"""Warnings about a data set as a whole, beyond faults of single tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.data.split_checks import MIN_GROUPS
from oncoshift.data.tables import LABELS, SCALE, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

FEW_GROUPS = 10
"""Groups per class below which intervals over groups are wide."""

IMBALANCE = 0.2
"""Share of an organ's labelled tiles below which a class is rare."""

COLOUR_SHORTCUT = 0.9
"""AUROC from which colour alone separates an organ's classes."""

_SHOWN = 5


def find_warnings(tiles: pd.DataFrame, colour: Mapping[str, float | None]) -> list[str]:
    """Find reasons for warnings, organ by organ.

    Args:
        tiles: sound tiles with organ, label and group.
        colour: organ → AUROC of colour alone, see `stains.colour_auroc`.
    """
    found = _check_scales(tiles)
    for organ, of_organ in tiles.groupby("organ", sort=True):
        known = of_organ[of_organ["label"] != UNKNOWN]
        if known.empty:
            found.append(f"{organ}: no tile has a label; a model can be adapted to it, but not evaluated on it")
            continue
        found += _check_classes(str(organ), known)
        score = colour.get(str(organ))
        if score is not None and score >= COLOUR_SHORTCUT:
            found.append(
                f"{organ}: mean colour alone separates benign from malignant (AUROC {score:.2f} on held-out groups); "
                "a high score there proves little about tissue"
            )
    return found


def _check_scales(tiles: pd.DataFrame) -> list[str]:
    if SCALE not in tiles or tiles[SCALE].nunique() < 2:
        return []
    counts = tiles[SCALE].value_counts()
    named = ", ".join(f"{scale:g} ({count} tiles)" for scale, count in counts.head(_SHOWN).items())
    return [f"tiles have {len(counts)} scales in µm per pixel: {named}; they are resampled to that of most tiles"]


def _check_classes(organ: str, known: pd.DataFrame) -> list[str]:
    found = []
    for label, name in enumerate(LABELS):
        of_class = known[known["label"] == label]
        groups, share = of_class["group"].nunique(), len(of_class) / len(known)
        if groups == 0:
            found.append(f"{organ}: no {name} tile; it can neither be a source nor be evaluated as a target")
        elif groups < MIN_GROUPS:
            found.append(f"{organ}: {groups} group with {name} tiles; as a source it needs at least {MIN_GROUPS}")
        elif groups < FEW_GROUPS:
            found.append(f"{organ}: {groups} groups with {name} tiles; intervals over so few are wide")
        if 0 < share < IMBALANCE:
            found.append(
                f"{organ}: {share:.0%} of the labelled tiles are {name}; batches are balanced, the data are not"
            )
    return found
