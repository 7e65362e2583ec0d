"""The log has each decision once, and says how many versions the same labels have judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from support.unplugged import Unplugged

from oncoshift.registry.audit import append_line, read_entries
from oncoshift.registry.decision import Decision
from oncoshift.registry.gate_record import count_judged, record_decision
from oncoshift.registry.policy import Reason
from oncoshift.registry.store import open_client

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from mlflow.entities.model_registry import RegisteredModel


def test_other_versions_are_counted_once_each_and_by_their_labels(client: MlflowClient, name: str) -> None:
    for version, labels, at in (("1", "a", 1), ("1", "a", 2), ("2", "b", 3), ("3", "a", 4), ("3", "", 5)):
        record_decision(client, name, version, Decision(False, (), at=f"2026-01-0{at}T00:00:00+00:00", labels=labels))
    counted = {version: count_judged(client, name, version, "a") for version in "1234"}
    assert counted == {"1": 1, "2": 2, "3": 1, "4": 2}
    assert count_judged(client, name, "4", "b") == 1


def test_a_deleted_version_has_looked_all_the_same(client: MlflowClient, name: str) -> None:
    record_decision(client, name, "1", Decision(False, (), at="2026-01-01T00:00:00+00:00", labels="a"))
    client.delete_model_version(name, "1")
    assert count_judged(client, name, "2", "a") == 1


def test_a_model_that_was_never_judged_has_no_log(client: MlflowClient, make_model: Callable[[], str]) -> None:
    assert count_judged(client, make_model(), "1", "a") == 0


def test_a_decision_that_is_recorded_already_is_not_written_again(client: MlflowClient, name: str) -> None:
    reasons = (Reason("AUROC", True, 0.9, 0.75, "enough"),)
    decision = Decision(True, reasons, at="2026-01-01T00:00:00+00:00")
    record_decision(client, name, "1", decision)
    nothing_written: Any = Unplugged(client, 0)
    record_decision(nothing_written, name, "1", decision)


def test_a_line_of_the_log_is_as_earlier_versions_wrote_it_and_not_repeated(client: MlflowClient, name: str) -> None:
    """A decision may be recorded again after an upgrade."""
    reason = Reason("alarms", False, 2, 0, "2 open, at most 0", ("a constant predictor", "few groups"))
    decision = Decision(False, (reason,), ("a note",), at="2026-01-01T00:00:00+00:00")
    words = "2 open, at most 0: a constant predictor; few groups"
    entry = {
        "kind": "gate",
        "version": "1",
        "verdict": "refuse",
        "promote": False,
        "reasons": [{"check": "alarms", "passed": False, "value": 2, "limit": 0, "words": words}],
        "flags": ["a note"],
        "champion": None,
        "at": decision.at,
        "approve_until": "",
        "labels": "",
    }
    append_line(client, name, decision.at, entry)
    record_decision(client, name, "1", decision)
    assert read_entries(client, name) == [entry]


def test_all_versions_are_not_read_before_each_tag(uri: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow would, to see whether the name is that of a prompt: slow among 1,000 versions."""
    asked: list[str] = []
    get = MlflowClient.get_registered_model

    def count_and_get(self: MlflowClient, model: str) -> RegisteredModel:
        asked.append(model)
        return get(self, model)

    monkeypatch.setattr(MlflowClient, "get_registered_model", count_and_get)
    client = open_client(uri)
    for key in ("a", "b", "c"):
        client.set_model_version_tag(name, "1", key, "text")
    client.set_registered_model_alias(name, "champion", "1")
    assert asked == [name]
