"""A version that needs a person's approval becomes champion by the first answer alone, or not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.unplugged import PlugPulledError, Unplugged

from oncoshift.errors import RegistryError
from oncoshift.registry.answers import Answer, settle_approval
from oncoshift.registry.approval import Approval
from oncoshift.registry.audit import read_lines
from oncoshift.registry.decision import Decision
from oncoshift.registry.gate_record import record_decision
from oncoshift.registry.history import get_version, list_events, list_versions, read_aliases
from oncoshift.registry.promotion import promote, rollback
from oncoshift.registry.times import add_time, get_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow import MlflowClient

YES = Answer(approve=True, by="anna", reason="seen by two readers")
NO = Answer(approve=False, by="ben", reason="scanner C is missing")


def ask(client: MlflowClient, name: str, version: str = "2", hours: float = 72, champion: str | None = "1") -> Decision:
    """Record a decision of the gate that awaits approval."""
    at = get_time()
    until = add_time(at, hours=hours)
    decision = Decision(promote=True, reasons=(), champion=champion, at=at, approve_until=until)
    record_decision(client, name, version, decision, retraining="1" * 32)
    return decision


@pytest.fixture
def asked(client: MlflowClient, name: str) -> str:
    """A model with champion 1, whose version 2 awaits approval."""
    promote(client, name, "1", "gate", "flow")
    ask(client, name)
    return name


def kill_at_each_write(client: MlflowClient, make_model: Callable[[], str]) -> Iterator[str]:
    """Yield models with champion 1, whose version 2 was being approved; each was killed later."""
    for last in range(30):
        name = make_model()
        promote(client, name, "1", "gate", "flow")
        ask(client, name)
        try:
            settle_approval(Unplugged(client, last), name, "2", YES)  # type: ignore[arg-type]
        except PlugPulledError:
            yield name
        else:
            return
    raise AssertionError("it never ends")


def find_gate(client: MlflowClient, name: str) -> str:
    return {row.version: row.gate for row in list_versions(client, name)}["2"]


def list_audited(client: MlflowClient, name: str) -> list[tuple[str, str]]:
    entries = [json.loads(line)["entry"] for line in read_lines(client, name)]
    return [(entry["kind"], entry.get("state", entry["version"])) for entry in entries]


def test_an_approved_version_becomes_champion(client: MlflowClient, asked: str) -> None:
    assert find_gate(client, asked) == "await"
    assert settle_approval(client, asked, "2").state == "awaited"
    assert read_aliases(client, asked)["champion"] == "1"
    approval = settle_approval(client, asked, "2", YES)
    assert (approval.state, approval.by, approval.reason) == ("approved", "anna", "seen by two readers")
    assert read_aliases(client, asked) == {"champion": "2", "previous": "1"}
    assert find_gate(client, asked) == "promote"
    last = list_events(client, asked)[-1]
    assert (last.kind, last.by, last.reason) == ("promote", "anna", "approved by anna: seen by two readers")
    assert list_audited(client, asked) == [("promote", "1"), ("gate", "2"), ("approval", "approved"), ("promote", "2")]


def test_a_refused_version_stays_out(client: MlflowClient, asked: str) -> None:
    assert settle_approval(client, asked, "2", NO).state == "refused"
    assert read_aliases(client, asked)["champion"] == "1"
    assert find_gate(client, asked) == "refuse"
    with pytest.raises(RegistryError, match="passed the gate, but was not approved"):
        promote(client, asked, "2", "all the same", "anna")
    assert list_audited(client, asked)[-1] == ("approval", "refused")


@pytest.mark.parametrize(("first", "second"), [(YES, NO), (NO, YES)])
def test_the_first_answer_counts(client: MlflowClient, asked: str, first: Answer, second: Answer) -> None:
    once = settle_approval(client, asked, "2", first)
    before = list_audited(client, asked), read_aliases(client, asked)
    assert settle_approval(client, asked, "2", second) == once
    assert (list_audited(client, asked), read_aliases(client, asked)) == before


def test_silence_refuses(client: MlflowClient, name: str) -> None:
    ask(client, name, hours=0)
    asked = Approval.read(get_version(client, name, "2").tags)
    assert asked is not None
    assert asked.is_due()
    approval = settle_approval(client, name, "2", YES)
    assert approval.state == "timed out"
    assert approval.words.startswith("nobody approved until 20")
    assert (find_gate(client, name), read_aliases(client, name)) == ("refuse", {})


def test_what_awaits_approval_is_not_promoted_in_passing(client: MlflowClient, asked: str) -> None:
    with pytest.raises(RegistryError, match=r"version 2: it awaits approval$"):
        promote(client, asked, "2", "good", "anna")
    promote(client, asked, "2", "good", "anna", force=True)
    assert read_aliases(client, asked)["champion"] == "2"
    assert list_events(client, asked)[-1].words == "promote by anna, forced although it awaits approval: good"


def test_an_approval_against_another_champion_is_no_promotion(client: MlflowClient, asked: str) -> None:
    promote(client, asked, "3", "by hand", "ben")
    approval = settle_approval(client, asked, "2", YES)
    assert approval.state == "overtaken"
    assert approval.words.endswith("but version 3 is champion now, and it was judged against version 1")
    assert (find_gate(client, asked), read_aliases(client, asked)["champion"]) == ("refuse", "3")
    rollback(client, asked, "a mistake", "ben")
    assert settle_approval(client, asked, "2").state == "overtaken", "nothing is promoted later, unattended"
    assert read_aliases(client, asked)["champion"] == "1"


def test_a_promotion_left_out_by_a_kill_is_not_made_up_for_after_other_changes(
    client: MlflowClient, make_model: Callable[[], str]
) -> None:
    states = set()
    for name in kill_at_each_write(client, make_model):
        promote(client, name, "3", "by hand", "ben")
        rollback(client, name, "a mistake", "ben")
        states.add(settle_approval(client, name, "2").state)
        expected = {"awaited": "1", "overtaken": "1", "approved": "2"}
        assert read_aliases(client, name)["champion"] == expected[settle_approval(client, name, "2").state]
    assert states == {"awaited", "overtaken", "approved"}


def test_a_version_rolled_back_after_its_approval_stays_out(client: MlflowClient, asked: str) -> None:
    settle_approval(client, asked, "2", YES)
    rollback(client, asked, "drifts", "ben")
    assert settle_approval(client, asked, "2").state == "approved"
    assert read_aliases(client, asked)["champion"] == "1"


def test_a_gate_that_records_its_decision_again_keeps_the_answer(client: MlflowClient, name: str) -> None:
    decision = ask(client, name, champion=None)
    settle_approval(client, name, "2", NO)
    record_decision(client, name, "2", decision, retraining="1" * 32)
    assert (find_gate(client, name), settle_approval(client, name, "2").state) == ("refuse", "refused")


def test_a_new_decision_asks_anew_or_no_longer(client: MlflowClient, name: str) -> None:
    decision = ask(client, name, champion=None)
    settle_approval(client, name, "2", NO)
    ask(client, name, hours=73, champion=None)
    assert (find_gate(client, name), settle_approval(client, name, "2").state) == ("await", "awaited")
    record_decision(client, name, "2", replace(decision, at=get_time(), approve_until=""))
    assert find_gate(client, name) == "promote"
    with pytest.raises(RegistryError, match="no approval was asked for"):
        settle_approval(client, name, "2", YES)


def test_an_approval_that_was_killed_at_any_write_is_finished(
    client: MlflowClient, make_model: Callable[[], str]
) -> None:
    """Killed before its answer is recorded, it has not happened; after that, it happens once."""
    champions = []
    for name in kill_at_each_write(client, make_model):
        found = settle_approval(client, name, "2")
        champions.append(read_aliases(client, name)["champion"])
        assert (found.state == "approved") == (champions[-1] == "2")
        assert settle_approval(client, name, "2", YES).state == "approved"
        assert read_aliases(client, name) == {"champion": "2", "previous": "1"}
        audited = [("promote", "1"), ("gate", "2"), ("approval", "approved"), ("promote", "2")]
        assert list_audited(client, name) == audited
    assert champions == sorted(champions)
    assert set(champions) == {"1", "2"}
