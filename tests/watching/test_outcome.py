"""What is said of a batch agrees with what is shown of its signals."""

from __future__ import annotations

import pytest

from oncoshift.registry.loading import ModelIdentity
from oncoshift.watching.estimate import Estimate
from oncoshift.watching.outcome import Outcome
from oncoshift.watching.signals import Signal


def make_outcome(shift: float, p: float, least_p: float = 0.001) -> Outcome:
    signal = Signal("abstained", shift, 0.1, p, p <= 0.05 and shift >= 0.1, "50% of the tiles, 10% in training")
    model = ModelIdentity("oncoshift-kidney", "1", "digest")
    none = Estimate(None, None, None, "none")
    return Outcome(
        model, "batch", "2026-01-01", 20, 20, 5, 0.5, 0.5, (signal,), none, 0.6, least_p=least_p, false_alarms=0.05
    )


@pytest.mark.parametrize(
    ("shift", "p", "least_p", "words", "title"),
    [
        (0.4, 0.01, 0.001, "drift: abstained past the limit", "abstained"),
        (0.4, 0.2, 0.001, "no drift shown: abstained past the limit, which may be chance by p", "no drift shown"),
        (0.4, 0.2, 0.2, "cannot tell: too few groups", "cannot tell"),
        (0.05, 0.2, 0.001, "no drift", "no drift"),
    ],
)
def test_no_drift_is_said_only_where_nothing_is_past_its_limit(
    shift: float, p: float, least_p: float, words: str, title: str
) -> None:
    outcome = make_outcome(shift, p, least_p)
    assert outcome.words.startswith(words)
    assert outcome.title == title
