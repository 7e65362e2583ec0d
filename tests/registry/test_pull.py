"""A pulled model is whole, runs by itself, and comes from a server whose files nobody else sees."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from support.ports import find_free_port
from support.tiny_tiles import tissue

from oncoshift.cli import main
from oncoshift.registry.packaging import log_and_register
from oncoshift.registry.promotion import promote
from oncoshift.registry.store import find_artifact_root
from oncoshift.serving.classifier import TileClassifier, normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from oncoshift.registry.folder import Package
    from oncoshift.registry.tracking import Tracker

NAME = "oncoshift-pulled"


@pytest.fixture(scope="module")
def package(make_package: Callable[[str], Package]) -> Package:
    package = make_package(NAME)
    return replace(package, config=replace(package.config, temperature=2.0, um_per_pixel=0.5))


@pytest.fixture(scope="module")
def champion(tracker: Tracker, package: Package) -> str:
    """The address of a model that is champion in the tests' store."""
    made = log_and_register(tracker, tracker.find_or_start_run("pulled", "pulled"), "pulled", package)
    promote(tracker.client, NAME, made.version, "test", "test")
    return f"models:/{NAME}@champion"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> Path:
    """A project whose store is the tests'; the current folder."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def server(uri: str, champion: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server on the tests' store, as `make ui` starts it."""
    port = str(find_free_port())
    folder = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", port, "--workers", "1"], stdout=log, stderr=log, cwd=folder, process_group=0
        )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 300
    try:
        while True:
            assert process.poll() is None, (folder / "log").read_text()[-4000:]
            assert time.monotonic() < deadline
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()  # noqa: S310 - http to this machine
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


def test_a_pulled_folder_runs_offline(
    project: Path, champion: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", "--model", champion, "--dest", "out/model"]) == 0
    folder = project / "out" / "model"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "example.py", "model", "requirements.txt", "wsinfer",
    ]  # fmt: skip
    readme = (folder / "README.md").read_text()
    assert readme.startswith("# card")
    assert "python example.py TILE.png" in readme
    assert len((folder / "example.py").read_text().splitlines()) <= 20
    Image.fromarray(tissue(0)).save(project / "tile.png")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
    monkeypatch.setattr(sys, "argv", ["example.py", str(project / "tile.png")])
    monkeypatch.setattr(sys, "path", list(sys.path))
    capsys.readouterr()
    runpy.run_path(str(folder / "example.py"), run_name="__main__")
    header, row = capsys.readouterr().out.splitlines()
    columns = ["file", "label", "probability", "shift", "abstain", "error", "scale"]
    assert header.split() == columns
    assert row.split()[0] == "tile.png"


def test_the_wsinfer_model_says_the_calibrated_probability(project: Path, champion: str, package: Package) -> None:
    assert main(["pull", "--model", champion, "--dest", "out"]) == 0
    config = json.loads((project / "out" / "wsinfer" / "config.json").read_text())
    assert config == {
        "spec_version": "1.0",
        "architecture": "resnet18",
        "num_classes": 2,
        "class_names": ["benign", "malignant"],
        "patch_size_pixels": 32,
        "spacing_um_px": 0.5,
        "transform": [
            {"name": "Resize", "arguments": {"size": 32}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
        ],
    }
    script = torch.jit.load(project / "out" / "wsinfer" / "torchscript_model.pt")
    classifier = TileClassifier("resnet18", 16, 0.5).eval()
    classifier.load_state_dict(package.state)
    x = normalise(torch.from_numpy(np.stack([tissue(seed) for seed in range(5)])))
    with torch.inference_mode():
        torch.testing.assert_close(script(x), classifier(x) / 2, atol=1e-5, rtol=1e-4)


def test_a_damaged_file_is_not_pulled(project: Path, champion: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "--model", champion, "--dest", "first"]) == 0
    weights = project / "first" / "model" / "artifacts" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert main(["pull", "--model", str(project / "first" / "model"), "--dest", "second"]) == 2
    assert "weights.safetensors: damaged" in capsys.readouterr().err
    assert not (project / "second").exists()


def test_a_folder_that_holds_something_is_left_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "mine").mkdir()
    (project / "mine" / "notes.txt").touch()
    assert main(["pull", "--target", "lung", "--dest", "mine"]) == 2
    assert "is there and not empty" in capsys.readouterr().err
    assert [path.name for path in (project / "mine").iterdir()] == ["notes.txt"]


def test_files_come_from_a_server_on_whose_disk_nobody_else_can_read(
    project: Path, champion: str, server: str, uri: str
) -> None:
    """The client runs where the recorded folder is empty, as it is on another machine."""
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode != 0:
        pytest.skip("no mount namespaces here")
    hidden = unquote(urlsplit(str(find_artifact_root(uri))).path)
    script = 'mount -t tmpfs none "$1" && test -z "$(ls "$1")" && shift && exec "$@"'
    command = [sys.executable, "-m", "oncoshift.cli", "pull", "--model", champion, "--dest", "out"]
    done = subprocess.run(
        [*alone, "sh", "-c", script, "sh", hidden, *command],
        env={**os.environ, "MLFLOW_TRACKING_URI": server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (project / "out" / "model" / "artifacts").iterdir()}
    assert {"config.json", "model.onnx", "model.pt2", "weights.safetensors"} <= names
