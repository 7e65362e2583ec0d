"""The log says how many versions the same labels have judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.registry.decision import Decision
from oncoshift.registry.gate_record import count_judged, record_decision

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient


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
