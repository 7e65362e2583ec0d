"""A retraining's summary tells people and later retrainings what they need."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from oncoshift.files import DamagedFileError
from oncoshift.registry.card import LEGEND
from oncoshift.registry.decision import Decision
from oncoshift.registry.policy import Reason
from oncoshift.registry.tracking import Tracker
from oncoshift.retraining.recipe import find_previous_outcome
from oncoshift.retraining.summary import SUMMARY, Outcome, Row, Summary
from oncoshift.selection.choice import Candidate, choose
from oncoshift.selection.verdict import Kind, Verdict
from oncoshift.steps.recorder import RunRecorder

if TYPE_CHECKING:
    from pathlib import Path


def summary(verdict: str, champion: str | None) -> Summary:
    """Make the summary of a retraining whose pick is version 2."""
    return Summary(
        target="kidney",
        sources=("lung",),
        made_up_data=False,
        seeds=1,
        confidence=0.95,
        rows=(Row("adapted", "dann", "0.5", "0.5", "0.5", "0.5"),),
        gain=None,
        picked="seed 0",
        verdict=Verdict(Kind.DOUBT, ("one source organ",)),
        findings=(),
        gate=Decision(verdict == "promote", (Reason("AUROC", verdict == "promote", 0.5, 0.6, "0.500"),)),
        model="oncoshift-kidney",
        version="2",
        champion=champion,
        run="1",
        experiment="2",
    )


@pytest.mark.parametrize(
    ("verdict", "champion", "words"),
    [
        ("refuse", None, "none yet"),
        ("refuse", "1", "version 1"),
        ("promote", "2", "version 2"),
        ("refuse", "2", "version 2, refused by the gate; it is live until"),
    ],
)
def test_a_champion_that_no_longer_passes_is_told(verdict: str, champion: str | None, words: str) -> None:
    """It stays live, and neither the terminal nor Prefect may hide that."""
    found = summary(verdict, champion)
    line = found.to_lines()[-1].removeprefix("champion of oncoshift-kidney: ")
    assert line.startswith(words)
    assert ("refused" in line) == (words.count("refused") == 1)
    assert f"champion: {line}." in found.to_markdown()


def test_a_runs_description_begins_with_gate_verdict_and_gain_and_is_short() -> None:
    """The UI folds a description of more than a line and a table."""
    lines = summary("refuse", "1").to_note().splitlines()
    assert lines[0].startswith("Gate: **refuse** version 2 · verdict: **doubt** · gain: **too few groups")
    assert "/experiments/2/runs/1/artifacts/report.html" in lines[0]
    assert [line.split("&emsp;")[0] for line in lines[2:]] == [
        "| on test tiles",
        "|---|---|---|---|---|",
        "| adapted (dann)",
    ]


def test_what_is_written_is_read_and_keeps_its_form() -> None:
    """Other programs read summary.json, and earlier versions wrote it."""
    found = summary("refuse", "1")
    values = json.loads(json.dumps(found.to_dict()))
    assert Summary.from_dict(values) == found
    assert values["verdict"] == {"kind": "doubt", "reasons": ["one source organ"]}
    assert values["rows"][0]["balanced_accuracy"] == "0.5"
    assert values["gate"]["verdict"] == "refuse"


def test_the_table_of_candidates_has_a_legend() -> None:
    tried = Candidate("mcc", "none", (0,), (0.5,), (0.2,), 0.6, None, Verdict(Kind.DOUBT, ("few tiles",)))
    found = replace(summary("refuse", "1"), choice=choose([tried]))
    lines = found.to_lines()
    assert lines[lines.index("picked: seed 0") - 1] == f"  ({LEGEND})"
    assert f"({LEGEND}.)" in found.to_markdown().splitlines()
    assert LEGEND not in summary("refuse", "1").to_markdown()


def test_each_open_alarm_has_a_line_of_its_own() -> None:
    alarms = Reason("alarms", False, 2, 0, "2 open, at most 0", ("dann seed 0: a constant predictor", "few groups"))
    found = replace(summary("refuse", "1"), gate=Decision(False, (alarms,)))
    shown = ["  ✗ alarms: 2 open, at most 0", "      dann seed 0: a constant predictor", "      few groups"]
    assert "\n".join(shown) in "\n".join(found.to_lines())
    listed = "- ✗ alarms: 2 open, at most 0\n  - dann seed 0: a constant predictor\n  - few groups\n"
    assert listed in found.to_markdown()
    assert Summary.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_only_a_condition_that_was_judged_has_a_tick() -> None:
    reasons = (
        Reason("AUROC", True, 0.9, 0.75, "0.900"),
        Reason("latency", True, 8.0, None, "8 ms a tile, no bound is set"),
        Reason("explanation", True, None, None, "was not measured", measured=False),
    )
    found = replace(summary("promote", "2"), gate=Decision(True, reasons))
    shown = ["✓ AUROC: 0.900", "· latency: 8 ms a tile, no bound is set", "– explanation: was not measured"]
    assert [line.strip() for line in found.to_lines() if line.strip()[0] in "✓·–"] == shown
    assert all(f"- {line}\n" in found.to_markdown() for line in shown)
    assert Summary.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("change", [{"rows": None}, {"verdict": {"kind": "fine", "reasons": []}}, {"more": 1}])
def test_what_another_version_wrote_is_told(change: dict[str, Any]) -> None:
    with pytest.raises(DamagedFileError, match="another version of oncoshift wrote it"):
        Summary.from_dict(summary("refuse", "1").to_dict() | change)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", "tests")


@pytest.fixture
def store(tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunRecorder:
    """The run of a finished retraining, after which version 3 became champion."""
    monkeypatch.setattr("oncoshift.retraining.approval.find_champion", lambda *_: "3")
    recorder = RunRecorder(tracker, tracker.find_or_start_run(str(tmp_path), "retrain"), str(tmp_path))
    tracker.finish(recorder.run)
    return recorder


def ended(recorder: RunRecorder) -> tuple[Outcome | None, list[str]]:
    said: list[str] = []
    session: Any = SimpleNamespace(recorder=recorder, key=recorder.key, say=said.append)
    return find_previous_outcome(session), said


def test_a_retraining_that_is_done_is_found_with_todays_champion(store: RunRecorder) -> None:
    summary("promote", "2").record(store)
    outcome, said = ended(store)
    assert outcome is not None
    assert outcome.summary == replace(summary("promote", "2"), champion="3")
    assert outcome.unchanged_since_ms == store.tracker.client.get_run(store.run).info.end_time
    assert (outcome.trained, said) == (False, [])


@pytest.mark.parametrize("values", [None, {}, {"version": "1", "gate": {}, "champion": None}])
def test_with_a_damaged_summary_the_steps_are_done_again(store: RunRecorder, values: dict[str, Any] | None) -> None:
    """The summary is missing, or an earlier version wrote a different one."""
    if values is not None:
        store.save_sealed(SUMMARY, values)
    outcome, said = ended(store)
    assert outcome is None
    assert len(said) == 1
    assert "summary.json: " in said[0]
    assert said[0].endswith("; it is rebuilt from the results of the steps")
