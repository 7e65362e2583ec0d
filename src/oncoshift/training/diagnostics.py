"""Label-free diagnosis of a training from its figures, one sentence a finding.

A finding is a fact about the run, not a verdict: a model without any may be useless
(`selection.verdict`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from oncoshift.methods.registry import METHODS
from oncoshift.selection.verdict import SAFE_SHARES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncoshift.settings import Settings

    History = Sequence[Mapping[str, float]]

CHANCE_RANGE = (0.97, 1.2)
"""Domain loss relative to the chance level: between these it is at chance. A head that learns falls
below, if only until the trunk catches up; one that diverges rises above."""

SEPARABLE_DISTANCE = 1.0
"""Proxy A-distance from which domains count as separable: a linear classifier errs on at most a
quarter of the tiles."""

UNFOOLED_ACCURACY = 0.95
"""Domain accuracy throughout the second half of training from which nothing was aligned."""

NORM_FACTOR = 100.0
"""Factor beyond which a norm is out of bounds: of features, relative to the first epoch, up or
down; of gradients, relative to the norm that they are clipped to."""


def list_findings(history: History, settings: Settings) -> tuple[str, ...]:
    """List the findings of a training, one sentence each.

    Args:
        history: one row of figures an epoch. Method and settings decide which figures there are;
            checks whose figures are missing are skipped.
        settings: of the training.
    """
    last = history[-1]
    found = [
        _check_predictions(last, settings.select.least_share),
        _check_malignant_share(last),
        _check_domain_head(history, settings),
        _check_feature_norm(history),
        _check_gradient(last, settings.train.grad_clip),
        _check_skipped_steps(history),
    ]
    return tuple(finding for finding in found if finding)


def chance_loss(settings: Settings) -> float:
    """Compute the cross-entropy in nats of a domain head that knows only the domains' frequencies.

    Half of each batch is target and half is sources. Chance is ln 2 for a head that sees the
    sources as one domain, and ln 2 + ½ ln S for one that separates S organs of equal size.
    """
    sources = len(settings.sources) if METHODS[settings.train.method].separates_organs else 1
    return math.log(2) + math.log(sources) / 2


def _check_predictions(last: Mapping[str, float], least_share: float) -> str | None:
    malignant = last["target_malignant_share"]
    if min(malignant, 1 - malignant) >= least_share:
        return None
    needed = f"each class needs {100 * least_share:g}%"
    return f"constant predictor: {malignant:.1%} of the target is called malignant ({needed})"


def _check_malignant_share(last: Mapping[str, float]) -> str | None:
    """Detect a target whose classes are too unequal for a head in closed form."""
    share, (low, high) = last.get("estimated_malignant_share"), SAFE_SHARES
    if share is None or low <= share <= high:
        return None
    return (
        f"unequal classes: about {share:.0%} of the target seems malignant, and from the anchor alone a head is safe "
        f"between {low:.0%} and {high:.0%}; label a few tiles, or choose a method that reads the sources"
    )


def _check_domain_head(history: History, settings: Settings) -> str | None:
    """Detect a dead or overpowered domain head, and one that the trunk never fools."""
    rows = [row for row in history if "domain_loss" in row]
    if not rows:
        return None
    chance, distance = chance_loss(settings), rows[-1]["proxy_a_distance"]
    losses = [row["domain_loss"] for row in rows]
    if (
        all(CHANCE_RANGE[0] * chance <= loss <= CHANCE_RANGE[1] * chance for loss in losses)
        and distance >= SEPARABLE_DISTANCE
    ):
        return (
            f"dead or overpowered domain head: its loss stayed between {min(losses):.2f} and {max(losses):.2f} "
            f"({chance:.2f} is knowing nothing), yet a linear classifier tells source from target by the same features "
            f"(proxy A-distance {distance:.2f} of 2); that loss is no sign of alignment"
        )
    accuracy = min(row["domain_accuracy"] for row in rows[len(rows) // 2 :])
    if accuracy >= UNFOOLED_ACCURACY:
        return (
            f"no alignment: the domain head was right on {accuracy:.0%} of tiles or more to the end (proxy A-distance "
            f"{distance:.2f} of 2), so the trunk never fooled it; raise max_lambda or weight"
        )
    return None


def _check_feature_norm(history: History) -> str | None:
    norms = [row["feature_norm"] for row in history if "feature_norm" in row]
    if not norms:
        return None
    before, after = norms[0], norms[-1]
    if before / NORM_FACTOR <= after <= before * NORM_FACTOR and after > 0:
        return None
    return f"feature norm {'exploded' if after > before else 'vanished'}: from {before:.3g} to {after:.3g}"


def _check_gradient(last: Mapping[str, float], clip: float | None) -> str | None:
    norm = last.get("gradient_norm", 0.0)
    if clip is None or norm <= NORM_FACTOR * clip:
        return None
    return f"gradients blew up: their norm was {norm:.3g} in the last epoch, cut to {clip:g}"


def _check_skipped_steps(history: History) -> str | None:
    skipped = sum(row.get("skipped_steps", 0.0) for row in history)
    return f"{skipped:.0f} steps were skipped: their loss or gradient was not finite" if skipped else None
