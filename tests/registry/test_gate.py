from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import NamedTuple

import pytest

from oncoshift.registry.gate import Decision, GateEvidence, decide
from oncoshift.settings import Gate


class Figure(NamedTuple):
    point: float
    low: float
    high: float


GOOD = GateEvidence(
    balanced_accuracy=Figure(0.80, 0.60, 0.90),
    auroc=Figure(0.85, 0.70, 0.95),
    sensitivity=Figure(0.75, 0.40, 0.90),
    gain_over_control=Figure(0.20, 0.05, 0.30),
    gain_over_champion=Figure(0.00, -0.01, 0.01),
    groups={"benign": 4, "malignant": 3},
    selection="information_maximisation",
)


def test_good_evidence_is_promoted_though_intervals_reach_below_the_floors() -> None:
    decision = decide(Gate(), GOOD)
    assert decision.promote
    assert decision.verdict == "promote"
    assert all(reason.passed for reason in decision.reasons)


def test_without_a_champion_there_is_nothing_to_be_inferior_to() -> None:
    assert decide(Gate(), replace(GOOD, gain_over_champion=None)).promote


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"balanced_accuracy": Figure(0.69, 0.6, 0.9)}, "balanced accuracy"),
        ({"auroc": Figure(0.74, 0.7, 0.9)}, "AUROC"),
        ({"sensitivity": Figure(0.59, 0.4, 0.9)}, "sensitivity"),
        ({"sensitivity": Figure(math.nan, math.nan, math.nan)}, "sensitivity"),
        ({"gain_over_control": Figure(0.10, -0.01, 0.2)}, "gain over source-only"),
        ({"gain_over_control": Figure(0.10, math.nan, 0.2)}, "gain over source-only"),
        ({"gain_over_champion": Figure(0.01, -0.03, 0.05)}, "not inferior to champion"),
        ({"groups": {"benign": 2, "malignant": 3}}, "audit groups"),
        ({"groups": {"benign": 7, "malignant": 1}}, "audit groups per class"),
        ({"groups": {"benign": 7}}, "audit groups per class"),
        ({"selection": "oracle"}, "selection"),
    ],
)
def test_each_condition_refuses_by_itself(change: dict[str, object], failed: str) -> None:
    decision = decide(Gate(), replace(GOOD, **change))
    assert not decision.promote
    assert [reason.check for reason in decision.reasons if not reason.passed] == [failed]
    assert decision.to_markdown().startswith("**refuse**: 1 of 8 conditions failed.")


def test_a_gain_of_nothing_is_no_gain() -> None:
    decision = decide(Gate(), replace(GOOD, gain_over_control=Figure(0.0, 0.0, 0.0)))
    assert [reason.check for reason in decision.reasons if not reason.passed] == ["gain over source-only"]


def test_a_decision_is_read_back_as_it_was_written() -> None:
    decision = decide(Gate(min_auroc=1.0), replace(GOOD, phantom=True))
    assert Decision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision


def test_limits_are_met_at_equality() -> None:
    at_limits = replace(
        GOOD,
        balanced_accuracy=Figure(0.7, 0, 1),
        auroc=Figure(0.75, 0, 1),
        sensitivity=Figure(0.6, 0, 1),
        gain_over_control=Figure(0.1, 0.001, 0.2),
        gain_over_champion=Figure(0.0, -0.02, 0.02),
        groups={"benign": 4, "malignant": 2},
    )
    assert decide(Gate(), at_limits).promote


def test_reasons_give_number_limit_and_words() -> None:
    decision = decide(Gate(min_gain_over_control=0.1), GOOD)
    reason = next(reason for reason in decision.reasons if not reason.passed)
    assert (reason.value, reason.limit) == (0.05, 0.1)
    assert reason.words == "balanced accuracy +0.200 [+0.050, +0.300], the lower end must exceed +0.100"
    assert json.loads(json.dumps(decision.to_dict()))["reasons"][6]["check"] == "gain over source-only"


def test_made_up_data_are_flagged_and_do_not_refuse() -> None:
    decision = decide(Gate(), replace(GOOD, phantom=True))
    assert decision.promote
    assert "> Made-up data (phantom)" in decision.to_markdown()
