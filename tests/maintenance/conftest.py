"""A project with a champion, a study and raw data, made once; each test works on a copy."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from optuna.trial import TrialState
from support.tiny_package import make_package
from support.tiny_tiles import write_tree

from oncoshift.registry.history import RETRAINING_TAG
from oncoshift.registry.packaging import log_and_register
from oncoshift.registry.promotion import promote, rollback
from oncoshift.registry.relocation import relocate
from oncoshift.registry.tracking import Tracker
from oncoshift.settings.base import Range
from oncoshift.tuning.study import SharedStudy
from oncoshift.versioning import version_raw

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "oncoshift-kidney"

PARAMS = """\
target: kidney
sources: [lung]
ingest: {adapter: folder, root: data/raw}
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    write_tree(root / "data" / "raw", groups=1, tiles=1)
    version_raw(root, root / "data" / "raw")
    (root / "mlruns").mkdir()
    tracker = Tracker(f"sqlite:///{root}/mlruns/mlflow.db", "oncoshift")
    run = tracker.find_or_start_run("retrain", "kidney ← lung", tags={"oncoshift.step": "retrain"})
    first = log_and_register(tracker, run, "first", make_package(MODEL), {RETRAINING_TAG: run})
    promote(tracker.client, MODEL, first.version, "the first", "test")
    second = tracker.client.create_model_version(MODEL, str(first.source), run)
    promote(tracker.client, MODEL, second.version, "the second", "test")
    tracker.finish(run)
    rollback(tracker.client, MODEL, "worse", "test")
    (root / "runs").mkdir()
    study = SharedStudy(f"sqlite:///{root}/runs/optuna.db", "study", heartbeat_seconds=60)
    claim = study.claim({"train.lr": Range(1e-4, 1e-2)}, {"train.lr": 1e-3}, trials=1)
    assert claim.trial is not None
    study.end(claim.trial, TrialState.COMPLETE, 0.5)
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, and the current folder."""
    root = tmp_path / "project"
    shutil.copytree(made, root)
    moved = relocate(root / "mlruns" / "mlflow.db")
    assert moved is not None
    moved.backup.unlink()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(root)
    return root
