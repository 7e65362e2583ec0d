"""What people read at the end of a retraining."""

from __future__ import annotations

from typing import Any

import pytest

from oncoshift.retraining.summary import to_lines, to_markdown

ROW = {"balanced_accuracy": "0.5", "auroc": "0.5", "sensitivity": "0.5", "specificity": "0.5"}


def summary(verdict: str, champion: str | None) -> dict[str, Any]:
    """Of a retraining whose pick is version 2."""
    return {
        "target": "kidney",
        "sources": ["lung"],
        "made_up_data": False,
        "seeds": 1,
        "confidence": 0.95,
        "rows": [{"role": "adapted", "method": "dann", **ROW}],
        "gain": None,
        "picked": "seed 0",
        "verdict": {"kind": "doubt", "reasons": ["one source organ"]},
        "findings": [],
        "gate": {"verdict": verdict, "reasons": [], "flags": []},
        "model": "oncoshift-kidney",
        "version": "2",
        "champion": champion,
    }


@pytest.mark.parametrize(
    ("verdict", "champion", "words"),
    [
        ("refuse", None, "none yet"),
        ("refuse", "1", "version 1"),
        ("promote", "2", "version 2"),
        ("refuse", "2", "version 2, judged again and refused; it is live until"),
    ],
)
def test_a_champion_that_no_longer_passes_is_told(verdict: str, champion: str | None, words: str) -> None:
    """It stays live, and neither terminal nor Prefect may hide that."""
    found = summary(verdict, champion)
    line = to_lines(found)[-1].removeprefix("champion of oncoshift-kidney: ")
    assert line.startswith(words)
    assert ("refused" in line) == (words.count("refused") == 1)
    assert f"champion: {line}." in to_markdown(found)
