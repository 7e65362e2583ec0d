"""A small project of its own, and the retraining flow run in it as a process, as a person or a scheduler would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from mlflow import MlflowClient

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parents[2]

TINY = {
    "target": "kidney",
    "sources": ["lung", "colon"],
    "phantom": {"organs": ["lung", "colon", "kidney"], "tile_size": 32, "groups_per_class": 8, "tiles_per_group": 3},
    "split": {"audit_share": 0.35, "test_share": 0.35},
    "normalize": {"variants": ["none"], "tile_size": 32},
    "model": {"bottleneck": 16},
    "train": {"epochs": 2, "steps_per_epoch": 4, "batch_size": 8, "threads": 1},
    "tune": {"trials": 2, "epochs": 2, "heartbeat_seconds": 1},
    "select": {"source_floor": 0.0},
    "retrain": {"seeds": 2},
    "evaluate": {"bootstrap": 100},
    "explain": {"tiles": 4, "steps": 4},
    # Whatever the tiny model is worth, it passes: these tests are about the flow.
    "gate": {
        "min_balanced_accuracy": 0.0,
        "min_auroc": 0.0,
        "min_sensitivity": 0.0,
        "min_gain_over_control": -1.0,
        "min_audit_groups": 2,
    },
}


@dataclass
class Project:
    """A project in a temporary folder."""

    root: Path

    @property
    def log(self) -> Path:
        """Output of the flow that was started last. A file: a pipe that nobody reads would stop it."""
        return self.root / "flow.log"

    @property
    def client(self) -> MlflowClient:
        uri = f"sqlite:///{self.root}/mlruns/mlflow.db"
        return MlflowClient(tracking_uri=uri, registry_uri=uri)

    def change(self, **sections: dict[str, object]) -> None:
        """Write other settings into params.yaml."""
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for section, values in sections.items():
            params[section] = {**params.get(section, {}), **values}
        path.write_text(yaml.safe_dump(params))

    def start(self, *arguments: str, module: str = "flows.retrain") -> subprocess.Popen[bytes]:
        """The flow, or another module, as a process of its own."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_TRACK", "PREF"))
        }
        environment |= {"ONCOSHIFT_PROJECT": str(self.root), "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> str:
        """Run the flow to its end; its output."""
        code = self.start(*arguments).wait(timeout=400)
        assert code == 0, self.log.read_text()[-6000:]
        return self.log.read_text()

    def run_until(self, reached: Callable[[], bool], what: str) -> None:
        """Run the flow until something is seen on disk, and pull the plug there and then."""
        process = self.start()
        self.wait_until(process, reached, what)
        os.killpg(process.pid, signal.SIGKILL)  # with its Prefect server, as when the machine loses power
        process.wait()

    def wait_until(self, process: subprocess.Popen[bytes], reached: Callable[[], bool], what: str) -> None:
        """Wait for something that a process that runs leaves on disk."""
        deadline = time.monotonic() + 240
        while not reached():
            assert process.poll() is None, f"ended before {what}: {self.log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"never reached: {what}"
            time.sleep(0.005)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("project")
    shutil.copy(REPOSITORY / "dvc.yaml", root / "dvc.yaml")
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copytree(REPOSITORY / "presets", root / "presets")
    defaults = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for section, values in TINY.items():
        defaults[section] = {**defaults[section], **values} if isinstance(values, dict) else values
    (root / "params.yaml").write_text(yaml.safe_dump(defaults))
    return Project(root)
