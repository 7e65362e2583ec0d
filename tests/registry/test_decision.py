"""The gate decides by labels where they suffice and by the verdict otherwise, and says why."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from oncoshift.evaluation.few_labels import LabelCounts
from oncoshift.evaluation.intervals import Interval
from oncoshift.registry.decision import Decision, GateEvidence, LabelEvidence, decide
from oncoshift.selection.verdict import Kind, Verdict
from oncoshift.settings import GateSettings, SelectSettings


def interval(point: float, low: float, high: float) -> Interval:
    return Interval(point, low, high, 0.95, 1000)


TRUST, DOUBT, REFUSE = (Verdict(kind, (f"why it is {kind}",)) for kind in Kind)

GOOD = GateEvidence(
    balanced_accuracy=interval(0.80, 0.60, 0.90),
    auroc=interval(0.85, 0.70, 0.95),
    sensitivity=interval(0.75, 0.40, 0.90),
    gain_over_control=interval(0.20, 0.05, 0.30),
    gain_over_champion=interval(0.00, -0.01, 0.01),
    groups={"benign": 4, "malignant": 3},
    selection="information_maximisation",
    source_accuracy=0.95,
    verdict=TRUST,
)

FEW = replace(
    GOOD,
    gain_over_control=None,
    gain_over_champion=None,
    groups={"benign": 1, "malignant": 2},
    too_few="benign lies in 1 group",
    **dict[str, Any](
        {
            name: interval(getattr(GOOD, name).point, math.nan, math.nan)
            for name in ("balanced_accuracy", "auroc", "sensitivity")
        }
    ),
)
"""Evidence from three labelled groups."""

WITHOUT_LABELS = GateSettings(without_audit="trust")
BY_LABELS = GateSettings(without_audit="few_labels")


def labels(
    right: tuple[int, int], total: tuple[int, int], also_trained: int = 0, groups: tuple[int, int] = (5, 5)
) -> LabelEvidence:
    fewer = (min(groups[0], total[0]), min(groups[1], total[1]))
    by_class = {"benign": fewer[0], "malignant": fewer[1]}
    return LabelEvidence(LabelCounts(right, total), 9, also_trained, by_class)


PROVED = labels((9, 10), (10, 10))


def decide_by(settings: GateSettings, evidence: GateEvidence) -> Decision:
    return decide(settings, SelectSettings(source_floor=0.8, trust_agreement=0.8), evidence)


def failed(decision: Decision) -> list[str]:
    return [reason.check for reason in decision.reasons if not reason.passed]


def test_good_evidence_is_promoted_though_intervals_reach_below_the_floors() -> None:
    decision = decide_by(GateSettings(), GOOD)
    assert decision.promote
    assert decision.action == "promote"
    assert all(reason.passed for reason in decision.reasons)


def test_without_a_champion_there_is_nothing_to_be_inferior_to() -> None:
    assert decide_by(GateSettings(), replace(GOOD, gain_over_champion=None)).promote


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"balanced_accuracy": interval(0.69, 0.6, 0.9)}, "balanced accuracy"),
        ({"auroc": interval(0.74, 0.7, 0.9)}, "AUROC"),
        ({"sensitivity": interval(0.59, 0.4, 0.9)}, "sensitivity"),
        ({"sensitivity": interval(math.nan, math.nan, math.nan)}, "sensitivity"),
        ({"gain_over_control": interval(0.10, -0.01, 0.2)}, "gain over source-only"),
        ({"gain_over_control": interval(0.10, math.nan, 0.2)}, "gain over source-only"),
        ({"gain_over_champion": interval(0.01, -0.03, 0.05)}, "not inferior to champion"),
        ({"groups": {"benign": 2, "malignant": 3}}, "audit groups"),
        ({"groups": {"benign": 7, "malignant": 1}}, "audit groups per class"),
        ({"groups": {"benign": 7}}, "audit groups per class"),
        ({"selection": "oracle"}, "selection"),
        ({"source_accuracy": 0.69}, "source accuracy"),
        ({"source_accuracy": math.nan}, "source accuracy"),
    ],
)
def test_each_condition_refuses_by_itself(change: dict[str, Any], check: str) -> None:
    decision = decide_by(GateSettings(), replace(GOOD, **change))
    assert not decision.promote
    assert failed(decision) == [check]
    assert decision.to_markdown().startswith("**refuse**: 1 of 9 conditions failed.")


def test_a_pick_below_the_source_floor_is_refused_unless_told_otherwise() -> None:
    below = replace(GOOD, source_accuracy=0.69)
    refused, allowed = (decide_by(GateSettings(below_source_floor=each), below) for each in ("refuse", "allow"))
    (reason,) = (reason for reason in refused.reasons if not reason.passed)
    assert (reason.value, reason.limit) == (0.69, 0.8)
    assert reason.words == "balanced accuracy 0.69 on the sources, floor 0.80"
    assert allowed.promote
    assert "0.69 on the sources, floor 0.80, allowed by gate.below_source_floor" in allowed.to_markdown()


@pytest.mark.parametrize("evidence", [GOOD, FEW])
@pytest.mark.parametrize("settings", [GateSettings(), WITHOUT_LABELS, BY_LABELS])
def test_every_condition_that_has_a_number_says_it_with_its_limit(
    settings: GateSettings, evidence: GateEvidence
) -> None:
    """The summary shows nothing but the words."""
    for reason in decide_by(settings, replace(evidence, agreement_with_champion=0.9, labels=PROVED)).reasons:
        for number in (reason.value, reason.limit):
            assert number is None or f"{number:.3g}" in reason.words, reason


def test_a_gain_of_nothing_is_no_gain() -> None:
    decision = decide_by(GateSettings(), replace(GOOD, gain_over_control=interval(0.0, 0.0, 0.0)))
    assert failed(decision) == ["gain over source-only"]


def test_a_decision_is_read_back_as_it_was_written() -> None:
    decision = decide_by(GateSettings(min_auroc=1.0), replace(GOOD, phantom=True))
    assert Decision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision


def test_limits_are_met_at_equality() -> None:
    at_limits = replace(
        GOOD,
        balanced_accuracy=interval(0.7, 0, 1),
        auroc=interval(0.75, 0, 1),
        sensitivity=interval(0.6, 0, 1),
        gain_over_control=interval(0.1, 0.001, 0.2),
        gain_over_champion=interval(0.0, -0.02, 0.02),
        groups={"benign": 4, "malignant": 2},
        source_accuracy=0.8,
    )
    assert decide_by(GateSettings(), at_limits).promote


def test_reasons_give_number_limit_and_words() -> None:
    decision = decide_by(GateSettings(min_gain_over_control=0.1), GOOD)
    reason = next(reason for reason in decision.reasons if not reason.passed)
    assert (reason.value, reason.limit) == (0.05, 0.1)
    assert reason.words == "balanced accuracy +0.200 [+0.050, +0.300], the lower end must exceed +0.100"
    assert json.loads(json.dumps(decision.to_dict()))["reasons"][7]["check"] == "gain over source-only"


def test_made_up_data_are_flagged_and_do_not_refuse() -> None:
    decision = decide_by(GateSettings(), replace(GOOD, phantom=True))
    assert decision.promote
    assert "> Made-up data (phantom)" in decision.to_markdown()


@pytest.mark.parametrize("settings", [GateSettings(), WITHOUT_LABELS])
@pytest.mark.parametrize("verdict", [TRUST, DOUBT, REFUSE])
def test_where_labels_suffice_they_decide_whatever_the_verdict(settings: GateSettings, verdict: Verdict) -> None:
    """`without_audit` makes no difference either."""
    bad = replace(GOOD, balanced_accuracy=interval(0.4, 0.3, 0.5), verdict=verdict)
    assert decide_by(settings, replace(GOOD, verdict=verdict)).promote
    assert failed(decide_by(settings, bad)) == ["balanced accuracy"]


@pytest.mark.parametrize(
    ("verdict", "accuracy", "outcome"),
    [(TRUST, 0.4, "misses a floor"), (REFUSE, 0.8, "holds the floors")],
)
def test_a_verdict_that_labels_contradict_is_flagged(verdict: Verdict, accuracy: float, outcome: str) -> None:
    decision = decide_by(GateSettings(), replace(GOOD, balanced_accuracy=interval(accuracy, 0.3, 0.9), verdict=verdict))
    assert len(decision.flags) == 1
    assert decision.flags[0].startswith(f"Contradiction: Without labels the verdict is {verdict.kind}.")
    assert outcome in decision.flags[0]


@pytest.mark.parametrize(("verdict", "accuracy"), [(TRUST, 0.8), (REFUSE, 0.4), (DOUBT, 0.8), (DOUBT, 0.4)])
def test_a_verdict_that_labels_do_not_contradict_is_a_note(verdict: Verdict, accuracy: float) -> None:
    decision = decide_by(GateSettings(), replace(GOOD, balanced_accuracy=interval(accuracy, 0.3, 0.9), verdict=verdict))
    assert decision.flags == (f"Without labels the verdict is {verdict.kind}.",)


def test_abstentions_are_counted_in_a_note() -> None:
    decision = decide_by(GateSettings(), replace(GOOD, abstained=3))
    assert decision.promote
    assert any("abstains on 3 audit tiles" in flag for flag in decision.flags)


def test_no_gain_over_the_control_is_no_contradiction_of_trust() -> None:
    """The model is good, and so is source-only."""
    decision = decide_by(GateSettings(), replace(GOOD, gain_over_control=interval(0.0, -0.1, 0.1)))
    assert not decision.promote
    assert not decision.flags[0].startswith("Contradiction")


@pytest.mark.parametrize("verdict", [TRUST, DOUBT, REFUSE])
def test_too_few_labels_refuse_by_default_and_the_verdict_is_said(verdict: Verdict) -> None:
    decision = decide_by(GateSettings(), replace(FEW, verdict=verdict))
    assert failed(decision) == ["audit groups", "audit groups per class", "intervals"]
    assert decision.flags == (f"Without labels the verdict is {verdict.kind}.",)


def test_groups_that_count_but_allow_no_interval_refuse() -> None:
    """With two groups in each class the counts suffice, but resampling has nothing to vary."""
    decision = decide_by(GateSettings(min_audit_groups=4), replace(FEW, groups={"benign": 2, "malignant": 2}))
    assert failed(decision) == ["intervals"]
    assert "benign lies in 1 group" in decision.to_markdown()


@pytest.mark.parametrize(
    "few",
    [
        FEW,
        replace(FEW, groups={"benign": 4, "malignant": 4}),  # enough groups, and yet no interval
        replace(GOOD, groups={"benign": 2, "malignant": 2}),
    ],
)
def test_without_labels_only_trust_is_promoted(few: GateEvidence) -> None:
    assert decide_by(WITHOUT_LABELS, replace(few, verdict=TRUST)).promote
    for verdict in (DOUBT, REFUSE):
        decision = decide_by(WITHOUT_LABELS, replace(few, verdict=verdict))
        assert failed(decision) == ["verdict without labels"]
        assert f"why it is {verdict.kind}" in decision.to_markdown()


def test_a_promotion_without_labels_says_so() -> None:
    flags = decide_by(WITHOUT_LABELS, FEW).flags
    assert flags[1] == "Too few labelled groups (1 benign, 2 malignant): decided without labels (without_audit)."


@pytest.mark.parametrize("figure", ["balanced_accuracy", "auroc", "sensitivity"])
def test_few_labels_that_speak_against_a_trusted_model_refuse_it(figure: str) -> None:
    change: dict[str, Any] = {figure: interval(0.3, math.nan, math.nan)}
    decision = decide_by(WITHOUT_LABELS, replace(FEW, **change))
    assert failed(decision) == [figure.replace("_", " ").replace("auroc", "AUROC")]
    assert "[nan" not in decision.to_markdown()


def test_without_labels_an_oracle_is_refused_as_well() -> None:
    assert failed(decide_by(WITHOUT_LABELS, replace(FEW, selection="oracle"))) == ["selection"]


@pytest.mark.parametrize(("kappa", "promoted"), [(0.79, False), (0.8, True), (-1.0, False), (math.nan, False)])
def test_without_labels_a_champion_gives_way_only_to_one_that_says_the_same(kappa: float, promoted: bool) -> None:
    decision = decide_by(WITHOUT_LABELS, replace(FEW, agreement_with_champion=kappa))
    assert decision.promote is promoted
    assert failed(decision) == ([] if promoted else ["agrees with champion"])


def test_an_audit_set_that_is_too_small_says_how_large_it_should_be() -> None:
    size = "With 1 benign and 2 malignant groups the interval is wide; about 20 more would do."
    few = replace(GOOD, groups={"benign": 1, "malignant": 2}, audit_size=size)
    assert size in decide_by(GateSettings(), few).flags
    assert size not in decide_by(GateSettings(), replace(GOOD, audit_size=size)).flags


@pytest.mark.parametrize("verdict", [TRUST, DOUBT, REFUSE])
def test_labels_that_prove_the_floor_promote_whatever_the_verdict(verdict: Verdict) -> None:
    decision = decide_by(BY_LABELS, replace(FEW, verdict=verdict, labels=PROVED))
    assert decision.promote
    reason = next(reason for reason in decision.reasons if reason.check == "proof by labels")
    assert reason.words == (
        "P(balanced accuracy > 0.7) = 0.996, right on 9 of 10 benign, 10 of 10 malignant, of 9 groups, must reach 0.95"
    )
    assert decision.flags[1] == (
        "Too few labelled groups (1 benign, 2 malignant): decided by labels of training tiles (without_audit)."
    )


@pytest.mark.parametrize(
    ("evidence", "checks"),
    [
        (None, ["label groups per class", "proof by labels"]),
        (labels((0, 12), (0, 12)), ["label groups per class", "proof by labels"]),
        (labels((6, 6), (10, 10)), ["proof by labels"]),
        (labels((2, 2), (2, 2)), ["proof by labels"]),
        (labels((10, 10), (10, 10), also_trained=1), ["labels apart"]),
        (replace(PROVED, changed=True), ["labels apart"]),
        (labels((10, 10), (10, 10), groups=(1, 5)), ["label groups per class"]),
    ],
)
def test_labels_refuse_what_they_do_not_prove(evidence: LabelEvidence | None, checks: list[str]) -> None:
    assert failed(decide_by(BY_LABELS, replace(FEW, labels=evidence))) == checks


def test_labels_are_asked_for_where_a_class_has_none() -> None:
    text = decide_by(BY_LABELS, FEW).to_markdown()
    assert "0 of the rarer class (0 benign, 0 malignant), must reach 2" in text
    one = decide_by(BY_LABELS, replace(FEW, labels=labels((10, 10), (10, 10), groups=(5, 1)))).to_markdown()
    assert "1 of the rarer class (5 benign, 1 malignant), must reach 2: one says nothing about others; run" in one


def test_the_bound_on_the_probability_is_a_setting() -> None:
    evidence = replace(FEW, labels=labels((4, 4), (5, 5)))
    strict, lax = (replace_bound(bound) for bound in (0.95, 0.55))
    assert failed(decide_by(strict, evidence)) == ["proof by labels"]
    assert decide_by(lax, evidence).promote


def replace_bound(bound: float) -> GateSettings:
    return GateSettings(without_audit="few_labels", min_label_probability=bound)


def test_labels_neither_replace_a_champion_that_disagrees_nor_an_audit_set_that_suffices() -> None:
    assert failed(decide_by(BY_LABELS, replace(FEW, labels=PROVED, agreement_with_champion=0.5))) == [
        "agrees with champion"
    ]
    decision = decide_by(BY_LABELS, replace(GOOD, labels=labels((0, 0), (10, 10))))
    assert decision.promote
    assert "proof by labels" not in {reason.check for reason in decision.reasons}


def test_labels_that_trained_the_model_are_named() -> None:
    decision = decide_by(GateSettings(), replace(GOOD, target_labels="10 (4 benign, 6 malignant)"))
    flags = decision.flags
    assert "Labels of the target trained this model: 10 (4 benign, 6 malignant)." in flags
    (source,) = (reason for reason in decision.reasons if reason.check == "source accuracy")
    assert "(of the model before labels corrected it)" in source.words


def test_skipped_tiles_are_named() -> None:
    text = decide_by(BY_LABELS, replace(FEW, labels=replace(PROVED, skipped=4))).to_markdown()
    assert "of 9 groups, 4 skipped, not judged, must reach 0.95" in text


@pytest.mark.parametrize(
    ("earlier", "said"),
    [
        (0, "exactly these 20 labels have judged 0 earlier versions"),
        (
            1,
            (
                "exactly these 20 labels have judged 1 earlier version: the more they judge, "
                "the less one that passes proves"
            ),
        ),
    ],
)
def test_versions_that_the_same_labels_judged_are_counted_and_change_no_decision(earlier: int, said: str) -> None:
    decision = decide_by(BY_LABELS, replace(FEW, labels=replace(PROVED, digest="d", earlier=earlier)))
    (reuse,) = (reason for reason in decision.reasons if reason.check == "label reuse")
    assert (reuse.value, reuse.words, reuse.mark) == (earlier, said, "recorded")
    assert decision.promote
    assert decision.labels == "d"
    assert Decision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision


def test_labels_that_did_not_judge_are_not_recorded_as_if_they_had() -> None:
    assert decide_by(BY_LABELS, replace(GOOD, labels=replace(PROVED, digest="d"))).labels == ""
