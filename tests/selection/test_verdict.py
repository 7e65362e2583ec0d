"""The verdict trusts, doubts and refuses synthetic predictions rightly, within a known limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oncoshift.selection.consensus import Consensus, find_consensus
from oncoshift.selection.verdict import ConsensusRule, Evidence, Kind, format_near_limits
from oncoshift.settings import SelectSettings

LABELS = np.arange(400) % 2


def model(right: float, seed: int) -> np.ndarray:
    """Make probabilities of a confident model that is right on about a share of the tiles.

    1 − `right` inverts the model. Its confidence varies a little, as any model's does, so that two
    models that contradict each other never tie at exactly ½.
    """
    rng = np.random.default_rng(seed)
    is_right = rng.random(len(LABELS)) < right
    confidence = rng.uniform(0.96, 0.98, len(LABELS))
    return np.where(is_right == (LABELS == 1), confidence, 1 - confidence)


def alone(*right: float) -> Consensus:
    """Find the consensus of independent models with these shares of right tiles."""
    return find_consensus(np.stack([model(share, 10 + number) for number, share in enumerate(right)]))


GOOD = alone(0.99, 0.98, 0.97)
JUDGE = ConsensusRule.from_settings(SelectSettings())


def test_a_good_model_that_independent_organs_confirm_is_trusted() -> None:
    verdict = JUDGE(Evidence(0.95, model(0.98, 0), GOOD))
    assert verdict.kind is Kind.TRUST
    assert len(verdict.reasons) == 4


@pytest.mark.parametrize("seed", range(20))
def test_an_inverted_model_is_refused_however_confident(seed: int) -> None:
    assert JUDGE(Evidence(0.99, model(0.03, seed), GOOD)).kind is Kind.REFUSE


@pytest.mark.parametrize("turned", range(3))
def test_one_organ_that_turns_the_classes_around_is_outvoted(turned: int) -> None:
    shares = [0.99, 0.98, 0.985]
    shares[turned] = 0.02
    assert JUDGE(Evidence(0.95, model(0.98, 0), alone(*shares))).kind is Kind.TRUST
    assert JUDGE(Evidence(0.95, model(0.02, 0), alone(*shares))).kind is Kind.REFUSE


def test_organs_that_agree_loosely_leave_a_doubt() -> None:
    # Two models that are right on 92 % each agree to a kappa of about (1 − 2 · .08) squared = .71.
    verdict = JUDGE(Evidence(0.95, model(0.95, 0), alone(0.92, 0.92)))
    assert verdict.kind is Kind.DOUBT
    assert any("the 2 of 2 models from single source organs" in reason for reason in verdict.reasons)


def test_two_organs_that_contradict_one_another_are_refused() -> None:
    verdict = JUDGE(Evidence(0.95, model(0.98, 0), alone(0.98, 0.02)))
    assert verdict.kind is Kind.REFUSE


def test_one_source_organ_is_never_trusted() -> None:
    verdict = JUDGE(Evidence(0.99, model(0.99, 0), None))
    assert verdict.kind is Kind.DOUBT
    assert "add a source organ" in verdict.reasons[0]


def test_constant_predictors_that_agree_with_one_another_are_refused() -> None:
    constant = np.full(len(LABELS), 0.97)
    verdict = JUDGE(Evidence(0.95, constant, find_consensus(np.stack([constant, constant, constant]))))
    assert verdict.kind is Kind.REFUSE
    assert any("100.0% of the target is called malignant" in reason for reason in verdict.reasons)
    assert any("3 of 3 put every tile into one class" in reason for reason in verdict.reasons)


def test_a_model_that_lost_its_sources_is_refused_with_that_reason_alone() -> None:
    verdict = JUDGE(Evidence(0.6, model(0.98, 0), GOOD))
    assert verdict.kind is Kind.REFUSE
    assert verdict.reasons == ("balanced accuracy on the sources is 0.60 (floor 0.80)",)


def test_a_failure_that_all_organs_share_is_not_seen() -> None:
    """This is the method's limit: it does not notice if all source organs invert the classes."""
    assert JUDGE(Evidence(0.95, model(0.02, 0), alone(0.01, 0.02, 0.015))).kind is Kind.TRUST


@pytest.mark.parametrize(
    ("correlations", "kind"),
    [
        ({"nuclei": 0.5}, Kind.TRUST),
        ({"nuclei": 0.5, "epithelium": 0.2}, Kind.DOUBT),
        ({"nuclei": 0.05, "epithelium": 0.4}, Kind.REFUSE),
        ({"nuclei": -0.05}, Kind.REFUSE),
        ({"nuclei": -0.6}, Kind.REFUSE),
    ],
)
def test_every_anchor_must_confirm_a_model(correlations: dict[str, float], kind: Kind) -> None:
    verdict = JUDGE(Evidence(0.95, model(0.98, 0), GOOD, correlations))
    assert verdict.kind is kind
    worst = min(correlations, key=lambda name: correlations[name])
    assert any(f"anchor {worst} with correlation {correlations[worst]:.2f}" in reason for reason in verdict.reasons)
    told = any("turned around" in reason for reason in verdict.reasons)
    assert told is (correlations[worst] < -0.1), "a correlation near 0 says that it does not follow, and no more"


def test_anchors_see_a_failure_that_all_organs_share() -> None:
    verdict = JUDGE(Evidence(0.95, model(0.02, 0), alone(0.01, 0.02, 0.015), {"nuclei": -0.4}))
    assert verdict.kind is Kind.REFUSE
    assert "turned around" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("stains", "kind"),
    [
        ({"reinhard": 0.9}, Kind.TRUST),
        ({"reinhard": 0.9, "macenko": 0.5}, Kind.DOUBT),
        ({"reinhard": 0.9, "macenko": -0.1}, Kind.DOUBT),
    ],
)
def test_what_depends_on_the_stain_is_not_trusted(stains: dict[str, float], kind: Kind) -> None:
    verdict = JUDGE(Evidence(0.95, model(0.98, 0), GOOD, stains=stains))
    assert verdict.kind is kind
    worst = min(stains, key=lambda name: stains[name])
    assert any(f"trained on {worst}, it calls the same tiles" in reason for reason in verdict.reasons)
    assert any("it depends on the stain" in reason for reason in verdict.reasons) is (kind is not Kind.TRUST)


def test_stains_see_a_failure_that_all_organs_share_on_one_of_them() -> None:
    shared = alone(0.01, 0.02, 0.015)
    assert JUDGE(Evidence(0.95, model(0.02, 0), shared, stains={"reinhard": -0.4})).kind is Kind.DOUBT


def test_a_witness_that_cannot_be_trained_leaves_a_doubt() -> None:
    verdict = JUDGE(Evidence(0.95, model(0.98, 0), GOOD, stains={"reinhard": 0.9, "macenko": None}))
    assert verdict.kind is Kind.DOUBT
    assert verdict.reasons == ("it cannot be trained on macenko, to see whether it depends on the stain",)


def test_a_model_of_the_anchors_is_judged_by_models_of_each_alone_and_not_by_them() -> None:
    agreeing, parted = alone(0.97, 0.96), alone(0.97, 0.8)
    trusted = JUDGE(Evidence(0.95, model(0.98, 0), agreeing, {"nuclei": -0.9}, anchored=True, malignant_share=0.5))
    assert trusted.kind is Kind.TRUST
    assert any("the 2 of 2 models from single anchors" in reason for reason in trusted.reasons)
    assert JUDGE(Evidence(0.95, model(0.98, 0), parted, anchored=True)).kind is Kind.DOUBT
    alone_reason = JUDGE(Evidence(0.95, model(0.98, 0), None, anchored=True)).reasons[0]
    assert alone_reason == "one anchor: no independent model to compare with; add another"


@pytest.mark.parametrize(("share", "kind"), [(0.5, Kind.TRUST), (0.34, Kind.DOUBT), (0.66, Kind.DOUBT)])
def test_unequal_classes_leave_a_doubt_about_a_head_in_closed_form(share: float, kind: Kind) -> None:
    evidence = Evidence(0.95, model(0.98, 0), alone(0.97, 0.96), anchored=True, malignant_share=share)
    assert JUDGE(evidence).kind is kind


@given(st.lists(st.floats(0, 1), min_size=2, max_size=4), st.floats(0, 1), st.floats(0.5, 1))
@example([0.8125, 0.625], 0.875, 1.0)
@settings(max_examples=300)
def test_naming_the_classes_the_other_way_round_changes_nothing(
    shares: list[float], right: float, source: float
) -> None:
    models = np.stack([model(share, number) for number, share in enumerate(shares)])
    candidate = model(right, 99)
    one = JUDGE(Evidence(source, candidate, find_consensus(models)))
    other = JUDGE(Evidence(source, 1 - candidate, find_consensus(1 - models)))
    assert one.kind is other.kind


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_model_and_its_opposite_are_never_both_trusted(
    first: float, second: float, third: float, right: float
) -> None:
    found, candidate = alone(first, second, third), model(right, 99)
    kinds = [JUDGE(Evidence(0.95, p, found)).kind for p in (candidate, 1 - candidate)]
    assert kinds != [Kind.TRUST, Kind.TRUST]


@pytest.mark.parametrize(
    ("value", "limits", "shown"),
    [
        (0.55, (0.1, 0.9), "0.55"),
        (0.897, (0.1, 0.9), "0.897"),
        (0.9, (0.1, 0.9), "0.90"),
        (0.7999, (0.8,), "0.7999"),
        (0.79999999, (0.8,), "0.8000"),
    ],
)
def test_a_figure_just_below_its_limit_does_not_read_as_if_it_reached_it(
    value: float, limits: tuple[float, ...], shown: str
) -> None:
    assert format_near_limits(value, *limits) == shown


def test_what_was_trained_without_a_source_that_contradicts_is_doubted_at_best() -> None:
    evidence = Evidence(0.95, model(0.98, 0), GOOD)
    assert JUDGE(evidence).kind is Kind.TRUST
    verdict = JUDGE(replace(evidence, left_out=("kidney",)))
    assert verdict.kind is Kind.DOUBT
    (reason,) = verdict.reasons
    assert reason == "trained without kidney, which contradicts the other source organs; at least one side is wrong"
    assert JUDGE(replace(evidence, left_out=("kidney",), source_accuracy=0.5)).kind is Kind.REFUSE
