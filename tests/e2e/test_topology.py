"""Tracking as compose.yaml starts it, as processes: PostgreSQL, an S3 store, MLflow with log-in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from e2e.conftest import REPOSITORY
from support.topology import Tracking, running_tracking

from oncoshift.cli import main
from oncoshift.registry.folder import Package
from oncoshift.registry.packaging import log_and_register
from oncoshift.registry.promotion import promote
from oncoshift.registry.tracking import Tracker
from oncoshift.serving.classifier import TileClassifier
from oncoshift.serving.config import ServedConfig

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    with running_tracking(tmp_path_factory.mktemp("servers")) as made:
        yield made


@pytest.fixture
def logged_in(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    for name, value in tracking.environment.items():
        monkeypatch.setenv(name, value)
    return tracking


def make_package() -> Package:
    torch.manual_seed(0)
    state = TileClassifier("resnet18", 16, 0.5).state_dict()
    config = ServedConfig("oncoshift-liver", "liver", ("lung",), "resnet18", 16, 0.5, tile_size=32)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return Package(config, state, "# card", list(tiles))


def test_a_version_is_registered_promoted_and_pulled_through_the_server_alone(
    logged_in: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(logged_in.uri, "tests")
    run = tracker.find_or_start_run("liver", "liver")
    tracker.log_text(run, "evidence", "report.html")
    version = log_and_register(tracker, run, "oncoshift-liver", make_package())
    promote(tracker.client, "oncoshift-liver", version.version, "good", "anna")
    monkeypatch.chdir(REPOSITORY)
    pulled = tmp_path / "pulled"
    assert main(["pull", "--model", "models:/oncoshift-liver@champion", "--dest", str(pulled)]) == 0
    assert (pulled / "model" / "artifacts" / "weights.safetensors").is_file()
    kept = [Path(key).name for key in logged_in.list_objects()]
    assert {"report.html", "weights.safetensors"} <= set(kept), "artifacts are in the S3 store"
    assert "X-Amz-Signature" not in logged_in.log.read_text(), "a client asked the S3 store itself"


def test_a_wrong_password_is_one_line(
    logged_in: Tracking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another-password")
    assert main(["models"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert "401" in said
    assert "MLFLOW_TRACKING_PASSWORD" in said
