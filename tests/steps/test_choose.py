"""Methods are screened until the time is used up, and never by target labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from oncoshift.errors import SettingsError, TrainingError, UntrainableError
from oncoshift.selection.verdict import Kind, Verdict
from oncoshift.settings import parse_settings
from oncoshift.steps.choose import run

if TYPE_CHECKING:
    from collections.abc import Mapping

METHODS = ["mcc", "cdan", "dann"]


def screened(
    method: str, variant: str, without: Mapping[str, float], contradictions: Mapping[str, float] | None = None
) -> Any:
    """Make the selection of a screened candidate with one seed."""
    settings = SimpleNamespace(train=SimpleNamespace(method=method, variant=variant))
    seed = SimpleNamespace(job=SimpleNamespace(seed=0, settings=settings), last={"nuclei": len(variant) / 10})
    score = {"mcc": 0.3, "cdan": 0.6, "dann": 0.5}[method]
    verdict = Verdict(Kind.DOUBT, ("one source",))
    return SimpleNamespace(
        picked=seed, seeds=[seed], scores=[score], verdict=verdict, agreement=None, stains={}, left_out=tuple(without),
        contradictions=contradictions or without,
    )  # fmt: skip


def test_all_methods_are_screened_in_their_order() -> None:
    asked: list[str] = []

    def screen(method: str, variant: str, without: Mapping[str, float]) -> Any:
        asked.append(method)
        return screened(method, variant, without)

    choice = run(parse_settings({"retrain": {"methods": METHODS}}), screen, lambda _line: None)
    assert (asked, choice.method) == (METHODS, "cdan")


def test_each_method_is_screened_on_all_variants_before_the_next_one() -> None:
    asked: list[tuple[str, str]] = []

    def screen(method: str, variant: str, without: Mapping[str, float]) -> Any:
        asked.append((method, variant))
        return screened(method, variant, without)

    both = ["none", "reinhard"]
    settings = parse_settings(
        {"retrain": {"methods": ["mcc", "cdan"], "variants": both}, "normalize": {"variants": both}}
    )
    choice = run(settings, screen, lambda _line: None)
    assert asked == [("mcc", "none"), ("mcc", "reinhard"), ("cdan", "none"), ("cdan", "reinhard")]
    assert (choice.method, choice.variant) == ("cdan", "reinhard")


def test_a_candidate_is_trained_again_without_the_source_that_contradicts_the_others() -> None:
    asked: list[tuple[str, ...]] = []
    said: list[str] = []

    def screen(method: str, variant: str, without: Mapping[str, float]) -> Any:
        asked.append(tuple(without))
        return screened(method, variant, without, None if without else {"kidney": -0.85})

    choice = run(parse_settings({"retrain": {"methods": ["mcc"]}}), screen, said.append)
    assert asked == [(), ("kidney",)]
    assert choice.chosen.without == {"kidney": -0.85}
    assert choice.words == "mcc without kidney, chosen of 1 without target labels"
    assert said == ["mcc: trained again without kidney (kappa -0.85), which contradicts the other source organs"]


def test_a_candidate_that_cannot_be_trained_without_a_source_has_failed() -> None:
    def screen(method: str, variant: str, without: Mapping[str, float]) -> Any:
        if without:
            raise UntrainableError("the loss is not finite")
        return screened(method, variant, without, {"kidney": -0.5} if method == "mcc" else {})

    choice = run(parse_settings({"retrain": {"methods": ["mcc", "dann"]}}), screen, lambda _line: None)
    assert (choice.method, choice.candidates[0].failure) == ("dann", "the loss is not finite")


def test_no_method_is_begun_after_the_time_is_used_up_and_it_is_said() -> None:
    said: list[str] = []
    choice = run(parse_settings({"retrain": {"methods": METHODS, "minutes": 1e-9}}), screened, said.append)
    assert choice.method == "mcc", "the first is always trained"
    assert [each.verdict is None for each in choice.candidates] == [False, True, True]
    assert said[0] == "choose: cdan is not trained: the 1e-09 minutes of retrain.minutes are used up"


def test_a_method_that_cannot_be_trained_is_left_out() -> None:
    def screen(method: str, variant: str, without: Mapping[str, float]) -> Any:
        if method == "cdan":
            raise UntrainableError("the loss is not finite")
        return screened(method, variant, without)

    said: list[str] = []
    choice = run(parse_settings({"retrain": {"methods": ["cdan", "mcc", "dann"]}}), screen, said.append)
    assert (choice.method, choice.candidates[0].failure) == ("dann", "the loss is not finite")
    assert said == ["choose: cdan is left out, as it cannot be trained: the loss is not finite"]
    assert choice.words == "dann, chosen of 2 without target labels; 1 failed"
    assert choice.rows[0][-1] == "failed: the loss is not finite"


@pytest.mark.parametrize(
    ("error", "asked"), [(UntrainableError("not finite"), METHODS), (TrainingError("out of memory"), METHODS[:1])]
)
def test_where_none_can_be_trained_or_another_try_may_do_the_retraining_ends(
    error: TrainingError, asked: list[str]
) -> None:
    seen: list[str] = []

    def screen(method: str, variant: str, without: Mapping[str, float]) -> Any:
        seen.append(method)
        raise error

    with pytest.raises(TrainingError, match=str(error)):
        run(parse_settings({"retrain": {"methods": METHODS, "minutes": 1e-9}}), screen, lambda _line: None)
    assert seen == asked


def test_methods_are_not_chosen_by_target_labels() -> None:
    with pytest.raises(SettingsError, match="oracle reads target labels"):
        parse_settings({"retrain": {"methods": METHODS}, "select": {"validator": "oracle"}})
