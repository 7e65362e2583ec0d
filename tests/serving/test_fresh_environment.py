"""The registered model works in an environment of its own requirements, without oncoshift."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import pytest
from PIL import Image
from support.ports import find_free_port
from support.tiny_tiles import tissue

from oncoshift.files import hold_lock, sha256_file
from oncoshift.registry.packaging import log_and_register
from oncoshift.registry.promotion import promote
from oncoshift.registry.tracking import Tracker
from oncoshift.serving.eager import EagerNetwork
from oncoshift.serving.predictor import TilePredictor

if TYPE_CHECKING:
    from oncoshift.registry.folder import Package
    from oncoshift.serving.classifier import TileClassifier

TRAINING_STACK = ["prefect", "optuna", "dvc", "captum", "lightning_fabric", "staintools"]

SCORE = """
import importlib.util, json, sys
from pathlib import Path
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
table = model.predict({"image": [Path(sys.argv[2]).read_bytes()]})
import oncoshift.serving.predictor as served
absent = [name for name in sys.argv[3:] if importlib.util.find_spec(name) is None]
print(json.dumps({"rows": table.to_dict("records"), "code": served.__file__, "absent": absent}))
"""


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory, package: Package) -> Path:
    """The folder of a registered model; its environment, without SQLAlchemy, opens no database."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('champion')}/mlflow.db"
    tracker = Tracker(uri, "fresh")
    made = log_and_register(tracker, tracker.find_or_start_run("run", "run"), "key", package)
    promote(tracker.client, made.name, made.version, "test", "test")
    return Path(urlparse(str(made.source)).path)


@pytest.fixture(scope="module")
def python(champion: Path, pytestconfig: pytest.Config) -> Path:
    """The Python of an environment with the model's requirements.txt and nothing else.

    It takes gigabytes, so pytest's cache keeps it while the requirements stay the same; `pytest
    --cache-clear` removes it.
    """
    requirements = champion / "requirements.txt"
    cache = pytestconfig.cache.mkdir("fresh-environment")
    folder = cache / sha256_file(requirements)[:16]
    python = folder / "bin" / "python"
    with hold_lock(cache / "lock"):
        if not (folder / "complete").is_file():
            for old in cache.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            _build(python, requirements)
            (folder / "complete").touch()
    return python


def _build(python: Path, requirements: Path) -> None:
    folder = python.parent.parent
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "--quiet", "--no-cache-dir"]
    probe = [*pip, "download", "--no-deps", "--dest", str(folder / "probe"), f"packaging=={version('packaging')}"]
    asked = subprocess.run(probe, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        pytest.skip(f"no package index to install the model's requirements from: {asked.stderr.strip()[-300:]}")
    subprocess.run([*pip, "install", "--no-compile", "--requirement", str(requirements)], check=True)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LANG", "SSL_CERT_FILE") if name in os.environ}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    return {**kept, **quiet, "HOME": str(tmp_path), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}


@pytest.fixture
def jpeg() -> bytes:
    """A tile like those of training, so that the model does not abstain."""
    buffer = io.BytesIO()
    Image.fromarray(tissue(0)).save(buffer, format="JPEG", quality=98)
    return buffer.getvalue()


@pytest.fixture
def expected(package: Package, classifier: TileClassifier, jpeg: bytes) -> float | None:
    return TilePredictor(package.config, EagerNetwork(classifier, "cpu")).predict([jpeg])[0].probability


def test_the_champion_scores_a_jpeg(
    python: Path, champion: Path, environment: dict[str, str], jpeg: bytes, expected: float, tmp_path: Path
) -> None:
    (tmp_path / "tile.jpg").write_bytes(jpeg)
    done = subprocess.run(
        [str(python), "-c", SCORE, str(champion), "tile.jpg", *TRAINING_STACK],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert Path(answer["code"]).is_relative_to(champion / "code")
    assert answer["absent"] == TRAINING_STACK
    (row,) = answer["rows"]
    assert row["probability"] == pytest.approx(expected, abs=1e-5)
    assert row["label"] == ("malignant" if expected >= 0.5 else "benign")


def test_the_champion_answers_over_http(
    python: Path, champion: Path, environment: dict[str, str], jpeg: bytes, expected: float, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{find_free_port()}"
    command = [str(python), "-m", "mlflow", "models", "serve", "--model-uri", str(champion), "--env-manager", "local"]
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", address.rpartition(":")[2]],
            cwd=tmp_path,
            env={**environment, "PATH": path},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(f"{address}/ping", server)
            body = {"dataframe_records": [{"image": base64.b64encode(jpeg).decode()}, {"image": "bm8="}]}
            request = urllib.request.Request(  # noqa: S310 - http to this machine
                f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                good, bad = json.load(answer)["predictions"]
        finally:
            os.killpg(server.pid, 15)
            server.wait(timeout=30)
    assert good["probability"] == pytest.approx(expected, abs=1e-5)
    assert good["error"] is None
    assert (bad["probability"], bad["label"]) == (None, None)
    assert bad["error"].startswith("2 bytes")


def _wait(url: str, server: subprocess.Popen[bytes], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} did not answer; server.log beside the test's files says why")
