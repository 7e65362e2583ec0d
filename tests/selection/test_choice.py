"""The method that is chosen without target labels, and what is said of those that are not."""

from __future__ import annotations

import json

import pytest

from oncoshift.selection.choice import HEADER, Candidate, choose, read_choice
from oncoshift.selection.verdict import Kind, Verdict


def candidate(method: str, kind: Kind = Kind.DOUBT, agreement: float | None = 0.5, score: float = 0.5) -> Candidate:
    return Candidate(method, (0, 1), (score - 0.1, score + 0.1), agreement, Verdict(kind, ("a reason",)))


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([candidate("mcc", Kind.REFUSE, 0.9, 0.9), candidate("cdan", agreement=0.4, score=0.2)], "cdan"),
        ([candidate("mcc", score=0.9), candidate("cdan", Kind.TRUST, score=0.2)], "cdan"),
        ([candidate("mcc", agreement=0.6, score=0.4), candidate("cdan", agreement=0.4)], "cdan"),
        ([candidate("mcc"), candidate("cdan")], "mcc"),
        ([candidate("mcc", Kind.REFUSE, score=0.2), candidate("cdan", Kind.REFUSE, score=0.3)], "cdan"),
        ([candidate("mcc", Kind.REFUSE), Candidate("cdan")], "mcc"),
    ],
    ids=["refused", "trusted", "score", "equal", "all refused", "not trained"],
)
def test_the_choice(candidates: list[Candidate], chosen: str) -> None:
    assert choose(candidates).method == chosen


def test_every_candidate_is_a_row_that_says_what_became_of_it() -> None:
    made = choose([candidate("mcc", Kind.REFUSE), candidate("cdan", Kind.TRUST), candidate("dann"), Candidate("mdd")])
    rows = [dict(zip(HEADER, row, strict=True)) for row in made.rows]
    assert {row["method"]: row["outcome"] for row in rows} == {
        "mcc": "refused", "cdan": "chosen", "dann": "dropped", "mdd": "not trained",
    }  # fmt: skip
    assert rows[1] == {
        "method": "cdan", "seeds": "0, 1", "score": "0.500", "agreement": "0.500", "verdict": "trust",
        "outcome": "chosen",
    }  # fmt: skip
    assert made.words == "cdan, chosen of 3 without target labels; 1 not trained, as retrain.minutes were used up"


def test_what_is_written_is_read_and_what_another_version_wrote_is_told() -> None:
    made = choose([candidate("mcc", Kind.REFUSE), candidate("cdan", agreement=None), Candidate("mdd")])
    values = json.loads(json.dumps(made.to_dict()))
    assert read_choice(values) == made
    with pytest.raises(ValueError, match="method"):
        read_choice({"candidates": values["candidates"]})
