"""No password in any address is ever written or printed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
import yaml
from mlflow import MlflowClient
from support.ports import find_free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.conftest import Project

PASSWORD = "hunter2"  # noqa: S105
STORAGE = "sqlite:///runs/${STUDY}.db"
"""An address with a secret part: a variable whose value only the environment holds."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Host of an MLflow server, and the folder that holds everything it stores and logs."""
    folder = tmp_path_factory.mktemp("server")
    port = find_free_port()
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, *store], stdout=log, stderr=log, cwd=folder, process_group=0)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"127.0.0.1:{port}", folder
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return


def files_that_hold(text: str, *folders: Path) -> list[Path]:
    """List the files whose name or content holds the text."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if text in str(path) or text.encode() in path.read_bytes()]


@pytest.mark.slow
def test_no_password_is_written_or_said(project: Project, server: tuple[str, Path]) -> None:
    host, kept = server
    (project.root / "presets" / "shared.yaml").write_text(yaml.safe_dump({"tune": {"storage": STORAGE}}))
    environment = os.environ | {"STUDY": PASSWORD, "MLFLOW_TRACKING_URI": f"http://me:{PASSWORD}@{host}"}

    command = [sys.executable, "-m", "oncoshift.cli", "tune", "--preset", "shared", "--workers", "2"]
    done = subprocess.run(
        command, cwd=project.root, env=environment, check=False, text=True, stdout=-1, stderr=-2, timeout=300
    )
    assert done.returncode == 0, done.stdout
    assert PASSWORD not in done.stdout
    assert STORAGE in done.stdout, "the best configuration is printed"

    found = files_that_hold(PASSWORD, project.root, kept)
    assert {path.name.removesuffix(".lock") for path in found} == {f"{PASSWORD}.db"}, "the database itself"
    experiment = next((project.root / "experiments").iterdir())
    for path in ("params.yaml", "runs/best.yaml"):
        assert yaml.safe_load((experiment / path).read_text())["tune"]["storage"] == STORAGE
    client = MlflowClient(f"http://{host}")
    runs = client.search_runs([client.get_experiment_by_name("oncoshift").experiment_id])
    assert sum(run.data.tags.get("oncoshift.step") == "trial" for run in runs) == 2
