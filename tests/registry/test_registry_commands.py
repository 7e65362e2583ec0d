"""`oncoshift models`, `promote`, `rollback` and `relocate` work as typed by a person."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from oncoshift.cli import main
from oncoshift.registry.digests import SUMS_TAG
from oncoshift.registry.history import WITHDRAWN_TAG, read_aliases
from oncoshift.registry.store import open_client
from oncoshift.registry.tracking import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REASON = "[/b] [red]x[/] :warning: <b>"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, tracker: Tracker) -> Callable[..., int]:
    """A function that runs a command in a project with the tests' store."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main(arguments)


@pytest.fixture
def name(tracker: Tracker, unique: Callable[[str], str]) -> str:
    name = unique("oncoshift-command")
    make_two_versions(tracker, name)
    return name


def make_two_versions(tracker: Tracker, name: str) -> None:
    tracker.client.create_registered_model(name)
    for _ in range(2):
        tracker.client.create_model_version(name, "file:///nowhere", run_id="0" * 32)


def test_a_reason_is_shown_as_it_was_typed_with_who_and_when(
    run: Callable[..., int], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("promote", "1", "--model", name, "--reason", REASON) == 0
    assert run("promote", "2", "--model", name, "--reason", "better") == 0
    assert run("rollback", "--model", name, "--reason", "worse") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{name}: version 1 is champion again"
    assert run("models", name) == 0
    shown, who = capsys.readouterr().out, pwd.getpwuid(os.getuid()).pw_name
    assert re.search(rf"20\d\d-\d\d-\d\d \d\d:\d\d promote by {who}: {re.escape(REASON)}", shown)
    assert re.search(rf"20\d\d-\d\d-\d\d \d\d:\d\d rollback by {who}: worse", shown)


def test_a_version_that_was_forced_past_the_gate_is_listed_as_such(
    run: Callable[..., int], name: str, tracker: Tracker, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker.client.set_model_version_tag(name, "1", "oncoshift.gate", "refuse")
    tracker.client.set_model_version_tag(name, "1", "oncoshift.gate.worst_seed", "FAILED: 0.410, at least 0.7")
    assert run("promote", "1", "--model", name, "--reason", "good") == 2
    told = capsys.readouterr().err
    helps = f"`oncoshift promote 1 --model {name} --force` promotes it all the same"
    assert f"the gate refused it (worst seed); {helps}\n  worst seed: 0.410, at least 0.7\n" in told
    assert run("promote", "1", "--model", name, "--reason", "good", "--force") == 0
    capsys.readouterr()
    assert run("models", name) == 0
    shown, who = " ".join(capsys.readouterr().out.split()), pwd.getpwuid(os.getuid()).pw_name
    assert f"refuse, forced by {who}" in shown
    assert f"promote by {who}, forced although the gate refused it (worst seed): good" in shown


def test_a_version_that_awaits_approval_is_refused_with_both_ways_to_promote_it(
    run: Callable[..., int], name: str, tracker: Tracker, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker.client.set_model_version_tag(name, "2", "oncoshift.gate", "await")
    assert run("promote", "2", "--model", name, "--reason", "good") == 2
    approved, forced = f"`oncoshift approve 2 --model {name}`", f"`oncoshift promote 2 --model {name} --force`"
    told = f"error: {name} version 2: it awaits approval; {approved}, or {forced}, promotes it\n"
    assert capsys.readouterr().err.endswith(told)


def test_what_is_not_copied_is_told_with_what_helps_here(
    run: Callable[..., int], name: str, tracker: Tracker, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    """No `--force` copies it."""
    for version, gate in (("1", "refuse"), ("2", "await")):
        tracker.client.set_model_version_tag(name, version, SUMS_TAG, "0" * 64)
        tracker.client.set_model_version_tag(name, version, "oncoshift.gate", gate)
        assert run("promote", version, "--model", name, "--reason", "good", "--to", uri) == 2
    refused, awaited = capsys.readouterr().err.splitlines()
    assert refused == f"error: {name} version 1: is not copied: the gate refused it"
    helps = f"`oncoshift approve 2 --model {name}` promotes it here"
    assert awaited == f"error: {name} version 2: is not copied: it awaits approval; {helps}"


def test_a_copy_that_was_rolled_back_there_is_told_with_the_command_that_promotes_it(
    run: Callable[..., int],
    name: str,
    tracker: Tracker,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
) -> None:
    tracker.client.set_model_version_tag(name, "2", WITHDRAWN_TAG, "drifts")
    monkeypatch.setattr("oncoshift.registry.transfer.copy_version", lambda *_: "2")
    assert run("promote", "1", "--model", name, "--reason", "good", "--to", uri) == 2
    helps = f"`oncoshift promote 1 --model {name} --to {uri} --force` promotes it all the same"
    assert capsys.readouterr().err.endswith(f"{name} version 2: it was rolled back (drifts); {helps}\n")


def test_a_reason_acts_on_no_terminal_and_is_not_blank(
    run: Callable[..., int], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("promote", "1", "--model", name, "--reason", " \t\x1b ") == 2
    assert "--reason is blank" in capsys.readouterr().err
    assert run("promote", "1", "--model", name, "--reason", "two\nlines\t\x1b[31mred") == 0
    assert run("models", name) == 0
    shown = capsys.readouterr().out
    assert "two lines [31mred" in shown
    assert "\x1b[31mred" not in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_of_a_listing_is_cut(
    run: Callable[..., int],
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
) -> None:
    reason = "as-long-as-a-person-likes-" * 5
    assert run("promote", "1", "--model", name, "--reason", reason) == 0
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert run("models", name) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    rows = [line.split("│")[1:-1] for line in shown.splitlines() if "│" in line]
    assert reason in "".join(row[-1].strip() for row in rows)
    if not terminal:
        assert re.search(r"│ 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\S* +│", shown)


def test_a_listing_as_json_has_all_that_is_known(
    run: Callable[..., int], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("promote", "1", "--model", name, "--reason", REASON) == 0
    capsys.readouterr()
    assert run("models", name, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["version"], row["aliases"], row["run_id"]) for row in rows] == [
        ("2", [], "0" * 32),
        ("1", ["champion"], "0" * 32),
    ]
    assert [(event["kind"], event["reason"]) for event in rows[1]["events"]] == [("promote", REASON)]


def test_a_long_list_has_the_newest_and_those_with_an_alias(
    run: Callable[..., int], name: str, tracker: Tracker, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker.client.create_model_version(name, "file:///nowhere", run_id="0" * 32)
    assert run("promote", "1", "--model", name, "--reason", REASON) == 0
    capsys.readouterr()

    def listed(*options: str) -> list[str]:
        assert run("models", name, "--json", *options) == 0
        return [row["version"] for row in json.loads(capsys.readouterr().out)]

    assert listed("--last", "1") == ["3", "1"]
    assert listed("--last", "0") == listed() == ["3", "2", "1"]
    assert run("models", name, "--last", "2") == 0
    assert "older versions are left out" in capsys.readouterr().out


def test_to_read_makes_no_store(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert run("compare") == 0
    assert "no retraining of" in capsys.readouterr().out
    for command in (("models",), ("promote", "1", "--reason", "good")):
        assert run(*command) == 2
        told = "mlflow.db: there is no store, so there are no registered models; `oncoshift retrain` registers"
        assert told in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()


def test_what_is_not_registered_is_told_with_the_next_step(
    run: Callable[..., int], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (("models", "oncoshift-none"), ("promote", "1", "--model", "oncoshift-none", "--reason", "good")):
        assert run(*command) == 2
        told = capsys.readouterr().err
        assert "no registered model 'oncoshift-none': " in told
        assert told.endswith("; `oncoshift retrain` registers a version of its target's\n")
    assert run("promote", "9", "--model", name, "--reason", "good") == 2
    assert capsys.readouterr().err.endswith("; `oncoshift models` lists them\n")


def test_promoting_the_champion_says_that_nothing_changed(
    run: Callable[..., int], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("promote", "1", "--model", name, "--reason", "good") == 0
    capsys.readouterr()
    assert run("promote", "1", "--model", name, "--reason", "again") == 0
    assert capsys.readouterr().out == f"{name}: version 1 is champion already; nothing changed, no reason recorded\n"


def test_a_copied_store_is_named_and_relocated(
    run: Callable[..., int],
    name: str,
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = uri.removeprefix("sqlite:///").removesuffix("/mlflow.db")
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    (copy / "artifacts").mkdir(exist_ok=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}/mlflow.db")
    for command in (("models", name), ("promote", "1", "--model", name, "--reason", "x"), ("compare",)):
        assert run(*command) == 2
        told = capsys.readouterr().err
        assert f"{original}/artifacts" in told
        assert f"{copy}/artifacts" in told
        assert "`oncoshift relocate`" in told
    assert run("relocate") == 0
    assert f"entries now name {copy}/artifacts instead of {original}/artifacts; backup: " in capsys.readouterr().out
    assert run("models", name) == 0
    assert run("relocate") == 0
    assert "nothing was changed" in capsys.readouterr().out
    open_client(uri)


def test_relocate_without_a_database_says_so(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none/mlflow.db")
    assert run("relocate") == 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:secret@127.0.0.1:1")
    assert run("relocate") == 2
    told = capsys.readouterr().err
    assert "none/mlflow.db: is not there" in told
    assert "http://127.0.0.1:1: is a server" in told
    assert "secret" not in told


def test_doctor_notices_a_champion_moved_by_hand_and_records_or_undoes_it(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In a store of its own: `doctor` looks at every model, and the other tests leave hundreds.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tracker, name = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "tests"), "oncoshift-moved"
    make_two_versions(tracker, name)
    assert run("promote", "1", "--model", name, "--reason", "good") == 0
    tracker.client.set_registered_model_alias(name, "champion", "2")
    assert run("doctor") == 2
    moved = f"{name}: its champion was moved outside oncoshift: version 2 instead of version 1"
    assert moved in capsys.readouterr().err
    first = "oncoshift-first"  # comes before, and was never champion by a command
    make_two_versions(tracker, first)
    tracker.client.set_registered_model_alias(first, "champion", "1")
    assert run("doctor") == 2
    assert "to have none again, delete the alias in MLflow's UI" in capsys.readouterr().err
    assert run("doctor", "--undo", "--reason", "a slip") == 2
    printed = capsys.readouterr()
    assert f"{name}: champion is version 1 again" in printed.out
    assert f"{first}: its history has no champion to go back to" in printed.err
    tracker.client.delete_registered_model_alias(first, "champion")
    tracker.client.set_registered_model_alias(name, "champion", "2")
    run("doctor", "--record")
    assert f"{name}: champion is version 2, and now" in capsys.readouterr().out
    run("doctor")
    assert "outside oncoshift" not in capsys.readouterr().err
    assert run("audit", name) == 0
    lines = [json.loads(line)["entry"] for line in capsys.readouterr().out.splitlines()]
    assert [(line["kind"], line["version"]) for line in lines] == [
        ("promote", "1"),
        ("manual", "2"),
        ("undo", "1"),
        ("manual", "2"),
    ]
    assert lines[2]["reason"] == "a slip"
    assert read_aliases(tracker.client, name) == {"champion": "2", "previous": "1"}
