"""Garbage goes when that is asked for, and nothing goes that anything may need."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from oncoshift.cli import main
from oncoshift.experiments import hold_experiment
from oncoshift.files import write_json
from oncoshift.layout import Layout
from oncoshift.maintenance import registry_garbage
from oncoshift.registry.approval import Approval
from oncoshift.registry.audit import read_lines
from oncoshift.registry.history import GATE_TAG, RETRAINING_TAG
from oncoshift.registry.loading import load_served
from oncoshift.registry.packaging import MODEL_TAG
from oncoshift.registry.tracking import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "oncoshift-kidney"
MONTHS = 90 * 86_400


@pytest.fixture
def tracker(project: Path) -> Tracker:
    return Tracker(f"sqlite:///{project}/mlruns/mlflow.db", "oncoshift")


@pytest.fixture
def collect(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, set[str]]]:
    """A function that runs the command and returns what it listed, by kind."""

    def run(*arguments: str) -> dict[str, set[str]]:
        capsys.readouterr()
        assert main(["gc", "--days", "0", "--json", *arguments]) == 0
        listed: dict[str, set[str]] = {}
        for row in json.loads(capsys.readouterr().out)["garbage"]:
            listed.setdefault(row["kind"], set()).add(row["name"])
        return listed

    return run


def retrain(tracker: Tracker, name: str, status: str, job: str) -> str:
    """Record a retraining with one training; return the id of its run."""
    run = tracker.find_or_start_run(f"retrain-{name}-{job}", name, tags={"oncoshift.step": "retrain"})
    tags = {"oncoshift.step": "train", "oncoshift.job": job}
    nested = tracker.find_or_start_run(f"retrain-{name}-{job}/train", "training", parent=run, tags=tags)
    tracker.log_text(nested, "figures", "table.json")
    for each in (nested, run):
        if status != "RUNNING":
            tracker.finish(each, status)
    folder = Layout(_find_root(tracker)).jobs / job
    folder.mkdir(parents=True)
    (folder / "done.json").write_text("{}")
    os.utime(folder / "done.json", (time.time() - MONTHS,) * 2)
    return run


def _find_root(tracker: Tracker) -> Path:
    return Path(tracker.uri.removeprefix("sqlite:///")).parents[1]


def register(tracker: Tracker, **tags: str) -> str:
    """Register a version without files."""
    version = tracker.client.create_model_version(MODEL, "file:///nowhere", "0" * 32, tags=tags)
    return str(version.version)


def test_only_what_nothing_needs_is_listed_and_a_listing_removes_nothing(
    project: Path, tracker: Tracker, collect: Callable[..., Any]
) -> None:
    refused = register(tracker, **{GATE_TAG: "refuse"})
    register(tracker, **Approval("awaited", "2999-01-01T00:00:00.000000Z", None, "0" * 32).to_tags())
    tracker.client.set_registered_model_alias(MODEL, "kept", register(tracker))
    retrain(tracker, "kidney ← colon", "FINISHED", "dann-s0-old")
    time.sleep(0.01)
    retrain(tracker, "kidney ← colon", "FINISHED", "dann-s0-new")
    retrain(tracker, "kidney ← breast", "KILLED", "dann-s0-killed")
    retrain(tracker, "kidney ← lung", "RUNNING", "dann-s0-running")
    served = retrain(tracker, "lung ← colon", "FINISHED", "dann-s0-live")
    tracker.client.set_registered_model_alias(MODEL, "served", register(tracker, **{RETRAINING_TAG: served}))
    deleted = tracker.client.create_run(tracker.experiment_id, run_name="deleted")
    tracker.client.delete_run(deleted.info.run_id)
    (next((project / ".dvc" / "cache" / "files" / "md5").iterdir()) / ("0" * 30)).write_text("nobody's")

    trunks = project / "runs" / "trunks"
    trunks.mkdir()
    for name in ("used", "forced", "nobodys"):
        (trunks / f"{name}.safetensors").write_text("weights")
    forced = project / "runs" / "forced" / "20260101T000000" / "dann-s0-forced"
    forced.mkdir(parents=True)
    write_json(project / "runs" / "jobs" / "dann-s0-new" / "done.json", {"frozen": "used"})
    write_json(forced / "done.json", {"frozen": "forced"})
    (project / "runs" / "jobs" / "dann-s0-running" / "done.json").write_text("cut")

    expected = {
        "version": {f"{MODEL} version {refused}"},
        "run": {"kidney ← breast"},
        "trash": {"deleted"},
        "job": {"dann-s0-old", "dann-s0-killed", "dann-s0-forced"},
        "trunk": {"nobodys.safetensors"},
        "data": {"1 objects of DVC's cache"},
    }
    assert collect() == expected
    assert tracker.client.get_model_version(MODEL, refused).status == "READY"  # a listing removes nothing
    assert (project / "runs" / "jobs" / "dann-s0-old").is_dir()


def test_a_collection_that_is_cut_short_is_finished_by_the_next_and_the_rest_works(
    project: Path, tracker: Tracker, collect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tracker.client.create_logged_model(tracker.experiment_id, MODEL)
    folder = Path(str(model.artifact_location).removeprefix("file://"))
    folder.mkdir(parents=True)
    (folder / "weights").write_text("weights")
    tags = {GATE_TAG: "refuse", MODEL_TAG: model.model_id}
    refused = str(tracker.client.create_model_version(MODEL, str(model.artifact_location), tags=tags).version)
    failed = retrain(tracker, "kidney ← breast", "FAILED", "dann-s0-failed")
    image = next((project / "data" / "raw").rglob("*.png")).read_bytes()
    before = load_served(f"models:/{MODEL}@champion", tracker.uri).predict({"image": [image]}).to_dict()

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry_garbage, "purge", cut)
        assert main(["gc", "--days", "0", "--delete"]) == 130
    collect("--delete")
    assert collect() == {}
    with pytest.raises(MlflowException):
        tracker.client.get_model_version(MODEL, refused)
    assert not folder.exists()
    assert [run.info.run_name for run in _list_runs(tracker)] == ["kidney ← lung"]
    assert not (project / "mlruns" / "artifacts" / failed).exists()
    assert list((project / "runs" / "jobs").iterdir()) == []
    last = json.loads(read_lines(tracker.client, MODEL)[-1])["entry"]
    assert (last["kind"], last["version"]) == ("deleted", refused)
    assert load_served(f"models:/{MODEL}@champion", tracker.uri).predict({"image": [image]}).to_dict() == before
    assert main(["promote", "2", "--force", "--reason", "still possible"]) == 0


def _list_runs(tracker: Tracker) -> list[Any]:
    return list(tracker.client.search_runs([tracker.experiment_id], run_view_type=ViewType.ALL))


def test_beside_a_running_retraining_folders_are_left_alone(
    project: Path, tracker: Tracker, collect: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    retrain(tracker, "kidney ← breast", "FAILED", "dann-s0-failed")
    with hold_experiment(Layout(project)):
        assert main(["gc", "--days", "0", "--delete"]) == 0
        assert "is using this experiment" in capsys.readouterr().err
    assert (project / "runs" / "jobs" / "dann-s0-failed").is_dir()
