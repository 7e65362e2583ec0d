"""The method that is chosen without target labels, and what is said of those that are not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from oncoshift.selection.choice import HEADER, Candidate, choose, read_choice
from oncoshift.selection.verdict import Kind, Verdict


def candidate(
    method: str,
    kind: Kind = Kind.DOUBT,
    agreement: float | None = 0.5,
    score: float = 0.5,
    variant: str = "none",
    nuclei: tuple[float, float] = (0.2, 0.4),
) -> Candidate:
    verdict = Verdict(kind, ("a reason",))
    return Candidate(method, variant, (0, 1), (score - 0.1, score + 0.1), nuclei, agreement, None, verdict)


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([candidate("mcc", Kind.REFUSE, 0.9, 0.9), candidate("cdan", agreement=0.4, score=0.2)], "cdan"),
        ([candidate("mcc", score=0.9), candidate("cdan", Kind.TRUST, score=0.2)], "cdan"),
        ([candidate("mcc", agreement=0.6, score=0.4), candidate("cdan", agreement=0.4)], "cdan"),
        ([candidate("mcc"), candidate("cdan")], "mcc"),
        ([candidate("mcc", Kind.REFUSE, score=0.2), candidate("cdan", Kind.REFUSE, score=0.3)], "cdan"),
        ([candidate("mcc", Kind.REFUSE), Candidate("cdan", "none")], "mcc"),
    ],
    ids=["refused", "trusted", "score", "equal", "all refused", "not trained"],
)
def test_the_choice(candidates: list[Candidate], chosen: str) -> None:
    assert choose(candidates).method == chosen


def test_the_variant_comes_first_by_the_mean_of_the_anchor_over_candidates() -> None:
    made = choose(
        [
            candidate("mcc", score=0.9, variant="none", nuclei=(0.5, 0.5)),
            candidate("cdan", score=0.9, variant="none", nuclei=(-0.5, -0.3)),
            candidate("mcc", Kind.REFUSE, score=0.9, variant="reinhard", nuclei=(0.4, 0.4)),
            candidate("cdan", score=0.2, variant="reinhard", nuclei=(0.1, 0.3)),
        ]
    )
    assert (made.method, made.variant) == ("cdan", "reinhard"), "0.3 beats 0.05, whatever score and verdict say"
    assert made.chosen is made.candidates[3]
    assert [row[-1] for row in made.rows] == ["dropped", "dropped", "refused", "chosen"]
    means = "none 0.050, reinhard 0.300"
    assert made.words == (
        f"cdan on reinhard by the anchor nuclei (mean correlation: {means}), chosen of 4 without target labels"
    )


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ((0.14121, 0.14079, 0.05), "none 0.1412, reinhard 0.1408, macenko 0.0500"),
        ((0.141, 0.05, 0.05), "none 0.141, reinhard 0.050, macenko 0.050"),
        ((0.0, 0.0, -0.1), "none 0.000, reinhard 0.000, macenko -0.100; the best are equal, so the first of them"),
    ],
    ids=["a fourth digit tells", "only others tie", "a tie"],
)
def test_the_means_that_chose_a_variant_are_told_apart(means: tuple[float, ...], words: str) -> None:
    """Equal figures would not say why one of them won."""
    named = zip(("none", "reinhard", "macenko"), means, strict=True)
    made = choose([candidate("mcc", variant=variant, nuclei=(mean, mean)) for variant, mean in named])
    assert made.variant == "none"
    assert f"(mean correlation: {words})" in made.words


def taught(variant: str = "none", kind: Kind = Kind.DOUBT) -> Candidate:
    """A candidate that learnt from the anchor, follows it closely and has the highest score."""
    return replace(candidate("anchored", kind, score=0.9, variant=variant, nuclei=(0.9, 0.9)), reads_anchor=True)


def test_a_method_that_learns_from_the_anchor_is_for_where_all_others_are_refused() -> None:
    assert choose([taught(), candidate("mcc", score=0.1)]).method == "mcc"
    assert choose([taught(), candidate("mcc", Kind.REFUSE)]).method == "anchored"
    assert choose([taught(kind=Kind.REFUSE), candidate("mcc", Kind.REFUSE, score=0.1)]).method == "mcc"
    assert choose([taught(kind=Kind.TRUST), candidate("mcc")]).method == "anchored"


def test_it_has_no_say_in_the_variant() -> None:
    others = [
        candidate("mcc", variant="none", nuclei=(-0.2, -0.1)),
        candidate("mcc", Kind.REFUSE, variant="reinhard", nuclei=(-0.1, 0.0)),
    ]
    made = choose([*others, replace(taught(), nuclei=(1.0, 1.0)), taught("reinhard", Kind.REFUSE)])
    assert (made.method, made.variant, made.by_anchor) == ("mcc", "reinhard", True)
    assert "none -0.150, reinhard -0.050" in made.words


def test_refused_candidates_have_no_say_in_the_variant_of_one_that_learnt_from_the_anchor() -> None:
    others = [
        candidate("mcc", Kind.REFUSE, variant="none", nuclei=(-0.2, -0.1)),
        candidate("mcc", Kind.REFUSE, variant="reinhard", nuclei=(-0.1, 0.0)),
    ]
    made = choose([*others, taught(), replace(taught("reinhard"), scores=(0.2, 0.2))])
    assert (made.method, made.variant, made.by_anchor) == ("anchored", "none", False)
    assert made.words == (
        "anchored on none, which learns from an anchor, as all that does not is refused, chosen of 4 without target "
        "labels"
    )
    alone = choose([taught(), replace(taught("reinhard"), scores=(1.0, 1.0)), Candidate("mcc", "none", failure="no")])
    assert (alone.method, alone.variant) == ("anchored", "reinhard")


def test_a_choice_among_refused_ones_says_so() -> None:
    made = choose([candidate("mcc", Kind.REFUSE), candidate("cdan", Kind.REFUSE, score=0.7)])
    assert made.words == (
        "cdan, chosen of 2 without target labels; all are refused, and this is the least bad, for the gate to judge"
    )


def test_trusted_candidates_come_before_the_variant() -> None:
    made = choose(
        [
            candidate("mcc", Kind.TRUST, score=0.3, variant="none", nuclei=(0.1, 0.1)),
            candidate("cdan", Kind.TRUST, score=0.4, variant="none", nuclei=(0.1, 0.1)),
            candidate("mcc", score=0.9, variant="reinhard", nuclei=(0.8, 0.8)),
        ]
    )
    assert (made.method, made.variant) == ("cdan", "none")
    assert made.words == "cdan on none, chosen of 3 without target labels", "the anchor had no say"


def test_variants_are_compared_by_the_methods_that_were_trained_on_all_of_them() -> None:
    made = choose(
        [
            candidate("mcc", variant="none", nuclei=(0.3, 0.3)),
            candidate("mcc", variant="reinhard", nuclei=(0.4, 0.4)),
            candidate("cdan", variant="none", nuclei=(0.9, 0.9)),
            Candidate("cdan", "reinhard"),
        ]
    )
    assert (made.method, made.variant) == ("mcc", "reinhard"), "cdan was not trained on reinhard"


def test_a_variant_on_which_nothing_was_trained_is_not_chosen() -> None:
    made = choose([Candidate("mcc", "reinhard", failure="not finite"), candidate("mcc", nuclei=(-0.9, -0.9))])
    assert (made.method, made.variant) == ("mcc", "none")


def test_every_candidate_is_a_row_that_says_what_became_of_it() -> None:
    made = choose(
        [candidate("mcc", Kind.REFUSE), candidate("cdan", Kind.TRUST), candidate("dann"), Candidate("mdd", "none")]
    )
    rows = [dict(zip(HEADER, row, strict=True)) for row in made.rows]
    assert {row["method"]: row["outcome"] for row in rows} == {
        "mcc": "refused", "cdan": "chosen", "dann": "dropped", "mdd": "not trained",
    }  # fmt: skip
    assert rows[1] == {
        "method": "cdan", "variant": "none", "without": "", "seeds": "0, 1", "score": "0.500", "nuclei": "0.300",
        "agreement": "0.500", "stain": "", "verdict": "trust", "outcome": "chosen",
    }  # fmt: skip
    assert made.words == "cdan, chosen of 3 without target labels; 1 not trained, as retrain.minutes were used up"


def test_what_is_written_is_read_and_what_another_version_wrote_is_told() -> None:
    made = choose([candidate("mcc", Kind.REFUSE), candidate("cdan", agreement=None), Candidate("mdd", "none")])
    values = json.loads(json.dumps(made.to_dict()))
    assert read_choice(values) == made
    with pytest.raises(ValueError, match="method"):
        read_choice({"candidates": values["candidates"]})
