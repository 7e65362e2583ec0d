"""Promotions and rollbacks move aliases consistently, also when interrupted or concurrent."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from support.unplugged import PlugPulledError, Unplugged

from oncoshift.errors import RegistryError
from oncoshift.registry.audit import EXPERIMENT, HEAD_TAG, read_lines
from oncoshift.registry.changes import INTENT_TAG
from oncoshift.registry.decision import Decision
from oncoshift.registry.gate_record import record_decision
from oncoshift.registry.history import LAST_TAG, WITHDRAWN_TAG, Event, list_events, list_versions, record_event
from oncoshift.registry.manual import find_manual_change
from oncoshift.registry.policy import Reason
from oncoshift.registry.promotion import ChampionMovedError, promote, recover, rollback, set_challenger
from oncoshift.registry.store import open_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def state(client: MlflowClient, name: str) -> tuple[dict[str, str], Any]:
    """Aliases, and everything else that a change writes."""
    rows = list_versions(client, name)
    events = [(str(event.kind), event.version, event.replaced) for event in list_events(client, name)]
    audited = [json.loads(line)["entry"]["version"] for line in read_lines(client, name)]
    tags = {key: text for key, text in client.get_registered_model(name).tags.items() if key != HEAD_TAG}
    last = {key: text for key, text in json.loads(tags.pop(LAST_TAG, "{}")).items() if key != "at"}
    return aliases(client, name), ([row.withdrawn for row in rows], events, audited, tags, last)


def test_aliases_follow_promotions(client: MlflowClient, name: str) -> None:
    set_challenger(client, name, "1", "trained", "flow")
    assert aliases(client, name) == {"challenger": "1"}
    promote(client, name, "1", "gate", "flow")
    assert aliases(client, name) == {"champion": "1"}
    set_challenger(client, name, "2", "trained", "flow")
    promote(client, name, "2", "gate", "flow")
    assert aliases(client, name) == {"champion": "2", "previous": "1"}
    assert [(event.kind, event.version, event.replaced) for event in list_events(client, name)] == [
        ("challenge", "1", None),
        ("promote", "1", None),
        ("challenge", "2", None),
        ("promote", "2", "1"),
    ]


def test_promoting_the_champion_again_changes_nothing(client: MlflowClient, name: str) -> None:
    promote(client, name, "1", "gate", "flow")
    promote(client, name, "2", "gate", "flow")
    before = state(client, name)
    promote(client, name, "2", "gate", "flow")
    set_challenger(client, name, "2", "trained", "flow")
    assert state(client, name) == before


def test_promoting_leaves_another_challenger(client: MlflowClient, name: str) -> None:
    set_challenger(client, name, "3", "trained", "flow")
    promote(client, name, "1", "by hand", "anna")
    assert aliases(client, name) == {"champion": "1", "challenger": "3"}


def test_rollback_swaps_and_keeps_automation_from_undoing_it(client: MlflowClient, name: str) -> None:
    promote(client, name, "1", "gate", "flow")
    promote(client, name, "2", "gate", "flow")
    assert rollback(client, name, "drifts on scanner B", "anna") == "1"
    assert aliases(client, name) == {"champion": "1", "previous": "2"}
    assert {row.version: row.withdrawn for row in list_versions(client, name)}["2"] == "drifts on scanner B"
    with pytest.raises(RegistryError, match=r"rolled back \(drifts on scanner B\)$"):
        promote(client, name, "2", "gate", "flow")
    promote(client, name, "2", "scanner fixed", "anna", force=True)
    assert aliases(client, name) == {"champion": "2", "previous": "1"}
    assert [row.withdrawn for row in list_versions(client, name)] == ["", "", ""]
    assert list_events(client, name)[-2].reason == "drifts on scanner B"


def test_a_second_rollback_does_not_bring_back_what_was_rolled_back(client: MlflowClient, name: str) -> None:
    promote(client, name, "1", "gate", "flow")
    promote(client, name, "2", "gate", "flow")
    rollback(client, name, "drifts", "anna")
    with pytest.raises(RegistryError, match=r"rolled back itself \(drifts\); `oncoshift promote` makes"):
        rollback(client, name, "once more", "ben")
    assert aliases(client, name) == {"champion": "1", "previous": "2"}


def test_to_promote_the_champion_changes_nothing_and_says_so(client: MlflowClient, name: str) -> None:
    assert promote(client, name, "1", "gate", "flow")
    before = state(client, name)
    assert not promote(client, name, "1", "looked at by a person", "anna")
    assert state(client, name) == before
    with pytest.raises(PlugPulledError):
        promote(Unplugged(client, 2), name, "2", "gate", "flow")  # type: ignore[arg-type]
    assert promote(client, name, "2", "gate", "flow"), "asked again after a crash, it is what was asked for"


def test_promotions_and_rollbacks_at_once_make_one_chain(uri: str, client: MlflowClient, name: str) -> None:
    promote(client, name, "1", "first", "flow")

    def change(number: int) -> None:
        mine = open_client(uri)
        for turn in range(5):
            promote(mine, name, str((number + turn) % 3 + 1), "better", f"thread {number}", force=True)
            set_challenger(mine, name, str(number), "trained", f"thread {number}")
            with suppress(RegistryError):  # the previous version may have been withdrawn by another
                rollback(mine, name, "worse", f"thread {number}")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(change, (1, 2, 3)))
    changes = [event for event in list_events(client, name) if event.kind != "challenge"]
    assert len(changes) > 10
    assert [event.replaced for event in changes[1:]] == [event.version for event in changes[:-1]]
    assert aliases(client, name)["champion"] == changes[-1].version
    assert INTENT_TAG not in client.get_registered_model(name).tags


def test_a_reason_that_mlflow_does_not_take_is_an_error_of_one_line(client: MlflowClient, name: str) -> None:
    with pytest.raises(RegistryError) as caught:
        promote(client, name, "1", "a" * 200_000, "anna")
    assert "\n" not in str(caught.value)
    assert aliases(client, name) == {}


def test_what_cannot_be_done_says_why(client: MlflowClient, name: str) -> None:
    with pytest.raises(RegistryError, match="no registered model 'oncoshift-none'"):
        promote(client, "oncoshift-none", "1", "", "")
    with pytest.raises(RegistryError, match=f"no version '9' of {name}"):
        promote(client, name, "9", "", "")
    with pytest.raises(RegistryError, match="no version '9'"):
        set_challenger(client, name, "9", "", "")
    promote(client, name, "1", "gate", "flow")
    with pytest.raises(RegistryError, match="'previous' to go back to; `oncoshift promote` makes"):
        rollback(client, name, "", "")
    assert aliases(client, name) == {"champion": "1"}


def test_a_refused_version_is_promoted_by_force_only_and_its_history_says_so(client: MlflowClient, name: str) -> None:
    passed, failed = Reason("worst seed", True, 0.9, 0.7, "fine"), Reason("AUROC", False, 0.5, 0.75, "0.5, too low")
    record_decision(client, name, "1", Decision(promote=False, reasons=(passed, failed)))
    with pytest.raises(RegistryError) as caught:
        promote(client, name, "1", "gate", "flow")
    assert str(caught.value) == f"{name} version 1: the gate refused it (auroc)\n  auroc: 0.5, too low"
    assert aliases(client, name) == {}
    promote(client, name, "1", "for a comparison", "anna", force=True)
    assert aliases(client, name) == {"champion": "1"}
    row = list_versions(client, name)[-1]
    assert (row.gate, row.forced) == ("refuse", "anna")
    assert row.events[-1].words == "promote by anna, forced although the gate refused it (auroc): for a comparison"
    assert json.loads(read_lines(client, name)[-1])["entry"]["forced"] == "the gate refused it (auroc)"


def test_force_that_overrules_nothing_is_not_recorded(client: MlflowClient, name: str) -> None:
    promote(client, name, "1", "good", "anna", force=True)
    row = list_versions(client, name)[-1]
    assert (row.forced, row.events[-1].words) == ("", "promote by anna: good")
    assert "forced" not in json.loads(read_lines(client, name)[-1])["entry"]


def to_third(client: Any, name: str) -> None:
    promote(client, name, "3", "gate", "flow")


def from_challenger(client: Any, name: str) -> None:
    set_challenger(client, name, "3", "trained", "flow")
    promote(client, name, "3", "gate", "flow")


def go_back(client: Any, name: str) -> None:
    rollback(client, name, "bad", "anna")


def force_back(client: Any, name: str) -> None:
    promote(client, name, "2", "fixed", "anna", force=True)


# Aliases before the change, and how many writes the change itself needs.
CHANGES = [
    pytest.param({}, to_third, 8, id="first promotion"),
    pytest.param({"previous": "1", "champion": "2"}, to_third, 9, id="promotion"),
    pytest.param({"previous": "1", "champion": "2"}, from_challenger, 16, id="challenge and promotion"),
    pytest.param({"previous": "1", "champion": "2"}, go_back, 10, id="rollback"),
    pytest.param({"previous": "2", "champion": "1", "withdrawn": "2"}, force_back, 10, id="forced return"),
]


@pytest.mark.parametrize(("past", "change", "writes"), CHANGES)
def test_killed_at_any_write_the_next_start_goes_on(
    client: MlflowClient,
    make_model: Callable[[], str],
    past: dict[str, str],
    change: Callable[[Any, str], None],
    writes: int,
) -> None:
    def fresh() -> str:
        name = make_model()
        for alias, version in past.items():
            if alias == "withdrawn":
                client.set_model_version_tag(name, version, WITHDRAWN_TAG, "bad")
            else:
                client.set_registered_model_alias(name, alias, version)
        if past:
            before, now = past["previous"], past["champion"]
            record_event(client, name, Event("promote", before, None, "flow", "", "2026-01-01T00:00:00.000000Z"))
            record_event(client, name, Event("promote", now, before, "flow", "", "2026-01-02T00:00:00.000000Z"))
        return name

    reference = fresh()
    before = state(client, reference)
    change(client, reference)
    after = state(client, reference)
    for last in range(writes):
        recovered, restarted = fresh(), fresh()
        for name in (recovered, restarted):
            with pytest.raises(PlugPulledError):
                change(Unplugged(client, last), name)
            live = aliases(client, name).get("champion")
            assert live in {before[0].get("champion"), after[0].get("champion")}
        recover(client, recovered)
        if change is not from_challenger:  # which is two changes with a state in between
            assert state(client, recovered) in (before, after)
        change(client, restarted)
        assert state(client, restarted) == after
    name = fresh()
    change(Unplugged(client, writes), name)
    assert state(client, name) == after


def test_a_change_to_a_deleted_version_says_what_to_do(client: MlflowClient, name: str) -> None:
    promote(client, name, "1", "first", "flow")
    with pytest.raises(PlugPulledError):
        promote(Unplugged(client, 1), name, "2", "gate", "flow")  # type: ignore[arg-type]
    client.delete_model_version(name, "2")
    with pytest.raises(RegistryError, match=r"delete the model's tag oncoshift\.intent"):
        recover(client, name)
    assert aliases(client, name) == {"champion": "1"}


def test_a_promotion_against_another_champion_than_expected_is_refused(client: MlflowClient, name: str) -> None:
    promote(client, name, "1", "gate", "flow", expected=None)
    promote(client, name, "2", "gate", "flow", expected="1")
    with pytest.raises(ChampionMovedError, match="version 2 is champion now; version 3 was judged against version 1"):
        promote(client, name, "3", "gate", "flow", expected="1")
    assert aliases(client, name) == {"champion": "2", "previous": "1"}


def test_the_history_has_no_gap_where_the_alias_was_moved_by_hand(client: MlflowClient, name: str) -> None:
    promote(client, name, "1", "gate", "flow")
    client.set_registered_model_alias(name, "champion", "2")
    promote(client, name, "3", "gate", "flow")
    client.delete_registered_model_alias(name, "champion")
    promote(client, name, "1", "gate", "flow")
    chain = [(event.kind, event.version, event.replaced) for event in list_events(client, name)]
    assert chain == [
        ("promote", "1", None),
        ("manual", "2", "1"),
        ("promote", "3", "2"),
        ("removed", "3", "3"),
        ("promote", "1", None),
    ]


def test_a_line_of_the_audit_log_that_was_changed_is_noticed(client: MlflowClient, name: str) -> None:
    for version in "123":
        promote(client, name, version, "gate", "flow")
    lines = read_lines(client, name)
    assert [json.loads(line)["entry"]["version"] for line in lines] == ["1", "2", "3"]
    audit = client.get_experiment_by_name("oncoshift-audit")
    assert audit is not None
    run = client.search_runs([audit.experiment_id], f"attributes.run_name = '{name}'")[0]
    client.set_tag(run.info.run_id, "line.00000001", lines[1].replace("gate", "fate"))
    with pytest.raises(RegistryError, match="line 2 or 3 was changed or removed"):
        read_lines(client, name)


def test_the_last_line_of_the_audit_log_that_was_removed_is_noticed_and_a_log_in_the_trash_goes_on(
    client: MlflowClient, name: str
) -> None:
    promote(client, name, "1", "gate", "flow")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    client.delete_run(run.info.run_id)
    promote(client, name, "2", "gate", "flow")
    assert len(read_lines(client, name)) == 2
    client.delete_tag(run.info.run_id, "line.00000001")
    with pytest.raises(RegistryError, match="has 1 lines; line 2 was changed or removed"):
        read_lines(client, name)


class ReadingNoVersions:
    """A client that lists no versions: of a thousand, nobody need read the tags for each change."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        assert name != "search_model_versions"
        return getattr(self._client, name)


def test_a_change_of_the_champion_does_not_read_all_versions(client: MlflowClient, name: str) -> None:
    promote(client, name, "1", "gate", "flow")
    narrow: Any = ReadingNoVersions(client)
    set_challenger(narrow, name, "2", "trained", "flow")
    promote(narrow, name, "2", "gate", "flow")
    assert rollback(narrow, name, "drifts", "anna") == "1"
    promote(narrow, name, "2", "mended", "anna", force=True)
    assert find_manual_change(narrow, name) is None
    events = list_events(client, name)
    assert [event.at for event in events] == sorted({event.at for event in events})
    assert [(event.kind, event.version, event.replaced) for event in events if event.changes_champion] == [
        ("promote", "1", None),
        ("promote", "2", "1"),
        ("rollback", "1", "2"),
        ("promote", "2", "1"),
    ]


@pytest.mark.parametrize("lost", [True, False], ids=["of a store of before", "that names another champion"])
def test_a_tag_of_the_last_change_that_is_wrong_is_not_believed(client: MlflowClient, name: str, lost: bool) -> None:
    promote(client, name, "1", "gate", "flow")
    promote(client, name, "2", "gate", "flow")
    if lost:
        client.delete_registered_model_tag(name, LAST_TAG)
    else:
        first = Event("promote", "1", None, "flow", "gate", "2026-01-01T00:00:00.000000Z")
        client.set_registered_model_tag(name, LAST_TAG, json.dumps(asdict(first)))
    promote(client, name, "3", "gate", "flow")
    chain = [(event.kind, event.version, event.replaced) for event in list_events(client, name)]
    assert chain == [("promote", "1", None), ("promote", "2", "1"), ("promote", "3", "2")]
