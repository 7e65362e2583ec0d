"""Optional rules of the gate bind only where the project sets a bound."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from oncoshift.registry.policy import PolicyEvidence, check_policy
from oncoshift.settings import GateSettings

GOOD = PolicyEvidence(ece=0.05, latency_ms=8.0, worst_seed=0.81, map_similarity=0.1, alarms=())
BOUNDS = GateSettings(max_ece=0.1, min_worst_seed=0.7, max_latency_ms=20.0, max_alarms=0, max_map_similarity=0.5)


def test_without_bounds_every_rule_passes_and_records_its_value() -> None:
    bad = PolicyEvidence(ece=0.9, latency_ms=900.0, worst_seed=0.1, map_similarity=1.0, alarms=("a", "b"))
    found = {reason.check: reason for reason in check_policy(GateSettings(), bad)}
    assert all(reason.passed for reason in found.values())
    assert found["calibration error"].words == "0.900, no bound is set (gate.max_ece)"
    assert (found["alarms"].words, found["alarms"].listed) == ("2 open, no bound is set (gate.max_alarms)", ("a", "b"))
    assert found["alarms"].outcome == "recorded: 2 open, no bound is set (gate.max_alarms): a; b"
    assert [found[name].value for name in ("worst seed", "latency", "alarms")] == [0.1, 900.0, 2]


def test_what_was_not_measured_is_no_condition_that_is_met() -> None:
    found = check_policy(GateSettings(), replace(GOOD, map_similarity=None))
    assert [reason.mark for reason in found] == ["recorded"] * 4 + ["unmeasured"]
    assert found[-1].outcome == "unmeasured: whether maps depend on the parameters was not measured"
    assert check_policy(BOUNDS, replace(GOOD, map_similarity=None))[-1].mark == "failed"


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, []),
        ({"ece": 0.11}, ["calibration error"]),
        ({"ece": math.nan}, ["calibration error"]),
        ({"worst_seed": 0.69}, ["worst seed"]),
        ({"latency_ms": 21.0}, ["latency"]),
        ({"alarms": ("training: feature norm exploded",)}, ["alarms"]),
        ({"map_similarity": 0.6}, ["explanation"]),
        ({"map_similarity": None}, ["explanation"]),
    ],
)
def test_a_value_beyond_its_bound_fails_its_rule_alone(change: dict[str, object], failed: list[str]) -> None:
    evidence = replace(GOOD, **change)  # type: ignore[arg-type]
    assert [reason.check for reason in check_policy(BOUNDS, evidence) if not reason.passed] == failed
