"""Doctor names what is wrong with its remedy, mends what is safe, and its exit code says which."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from support.answering import answering
from support.ports import find_free_port

from oncoshift.cli import main
from oncoshift.maintenance.findings import Scene
from oncoshift.maintenance.prefect_checks import check_prefect
from oncoshift.registry.changes import INTENT_TAG
from oncoshift.registry.history import Event
from oncoshift.registry.lease import LOCK
from oncoshift.registry.processes import PROCESS_TAG, describe_process, has_ended, identify_machine
from oncoshift.registry.tracking import Tracker
from oncoshift.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL = "oncoshift-kidney"


@pytest.fixture
def tracker(project: Path) -> Tracker:
    return Tracker(f"sqlite:///{project}/mlruns/mlflow.db", "oncoshift")


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """A function that runs doctor with the profile of a server, and returns what it prints."""

    def run(*arguments: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["doctor", "--profile", "server", "--json", *arguments]) == code, capsys.readouterr()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def start_a_run_and_die(project: Path, key: str) -> str:
    """Start a run in a process that is killed; return its id."""
    script = (
        "import os, sys\nfrom oncoshift.registry.tracking import Tracker\n"
        f"tracker = Tracker('sqlite:///{project}/mlruns/mlflow.db', 'oncoshift')\n"
        f"print(tracker.find_or_start_run({key!r}, {key!r}), flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stdout.strip()


def test_a_run_whose_process_was_killed_is_found_and_ended(
    project: Path, tracker: Tracker, examine: Callable[..., dict[str, Any]]
) -> None:
    stuck = start_a_run_and_die(project, "killed")
    alive = tracker.find_or_start_run("alive", "alive")
    (warning,) = examine(code=1)["warnings"]
    assert warning.startswith(f"run 'killed' ({stuck[:8]}) is RUNNING in MLflow, but its process is gone; ")
    assert examine("--fix")["fixed"] == [warning.partition(";")[0]]
    assert tracker.client.get_run(stuck).info.status == "KILLED"
    assert tracker.client.get_run(alive).info.status == "RUNNING"
    assert examine()["warnings"] == []
    assert tracker.find_or_start_run("killed", "killed") == stuck  # it goes on


def test_a_process_is_told_from_one_that_ended_and_one_that_is_elsewhere() -> None:
    own = describe_process()
    host, _, rest = own.partition(" ")
    assert has_ended(own) is False
    assert has_ended(f"{host} {identify_machine()}-1-0") is True  # process 1 began at another time
    assert has_ended(f"{host} 00000000-{os.getpid()}-1") is True  # before the last start of this machine
    assert has_ended(f"another-host {rest.replace(identify_machine(), '00000000')}") is None
    assert has_ended("") is None


def test_a_trial_without_a_worker_is_found_and_failed_for_the_next_one(
    project: Path, examine: Callable[..., dict[str, Any]]
) -> None:
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{project}/runs/optuna.db")
    trial = study.ask()
    trial.set_user_attr("worker", "gone:1")
    with closing(sqlite3.connect(project / "runs" / "optuna.db")) as database, database:
        beat = "INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (?, '2020-01-01 00:00:00')"
        database.execute(beat, (trial._trial_id,))
    (warning,) = examine(code=1)["warnings"]
    assert warning.startswith("1 trials are RUNNING without a worker: 1 of study; ")
    examine("--fix")
    assert [each.state.name for each in study.get_trials()] == ["COMPLETE", "FAIL"]
    assert examine()["warnings"] == []


def test_what_killed_changes_of_aliases_left_is_finished(
    tracker: Tracker, examine: Callable[..., dict[str, Any]]
) -> None:
    event = Event("promote", "2", "1", "test", "cut short", "2999-01-01T00:00:00.000000Z")
    tracker.client.set_registered_model_tag(MODEL, INTENT_TAG, json.dumps(event.__dict__))
    tracker.client.create_registered_model(f"{LOCK} 7 held {identify_machine()}-1-0-aa")
    warnings = examine(code=1)["warnings"]
    assert [warning.partition("; ")[0] for warning in warnings] == [
        f"registered model '{LOCK} 7 held {identify_machine()}-1-0-aa' is held by a process that has ended",
        f"{MODEL}: a change of its champion was left incomplete",
    ]
    examine("--fix")
    assert examine()["warnings"] == []
    assert tracker.client.get_registered_model(MODEL).aliases["champion"] == 2


def test_a_damaged_champion_and_a_server_that_is_away_are_errors(
    project: Path, examine: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = next((project / "mlruns").rglob("weights.safetensors"))
    weights.write_bytes(b"damaged")
    monkeypatch.setenv("PREFECT_API_URL", f"http://me:secret@127.0.0.1:{find_free_port()}/api")
    damaged, away = sorted(examine(code=2)["problems"], key=lambda problem: "does not answer" in problem)
    assert f"{weights}: damaged" in damaged
    assert "does not answer (ConnectionError); start it" in away
    assert "secret" not in away


@pytest.mark.parametrize(("status", "kind"), [(404, "application/json"), (200, "text/html")], ids=["none", "pages"])
def test_an_address_without_prefects_api_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, kind: str
) -> None:
    scene = Scene(tmp_path, Settings(), "sqlite:///none.db", "sqlite:///none.db", "server")
    with answering(status, kind) as address:
        monkeypatch.setenv("PREFECT_API_URL", address)
        (finding,) = check_prefect(scene)
    assert (finding.level, finding.words) == ("error", f"{address}: what answers there is not Prefect's API")
    assert finding.remedy == "set PREFECT_API_URL to the API's address, which ends in /api"


def test_versions_that_differ_from_the_pins_are_named(
    project: Path, examine: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "constraints.txt").write_text("mlflow==0.1  # old\nnot-installed==1\n")
    (warning,) = examine(code=1)["warnings"]
    assert "mlflow 3" in warning
    assert "instead of 0.1; pip install -c constraints.txt" in warning
    assert main(["doctor", "--profile", "serve"]) == 1
    assert f"warning: {warning}" in capsys.readouterr().err


def test_every_run_names_the_process_that_works_on_it(tracker: Tracker) -> None:
    run = tracker.find_or_start_run("tagged", "tagged")
    assert tracker.client.get_run(run).data.tags[PROCESS_TAG] == describe_process()
