"""A small project, and the retraining flow run in it as a separate process, as users run it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from mlflow import MlflowClient
from support.made_once import make_once, make_prefect_database
from support.ports import find_free_port
from support.tiny_settings import TINY as COMMON

from oncoshift.cli import main
from oncoshift.versioning import repro

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[2]

TINY = COMMON | {
    "phantom": {"organs": ["lung", "colon", "kidney"], "tile_size": 32, "groups_per_class": 8, "tiles_per_group": 3},
    "train": {"epochs": 2, "steps_per_epoch": 4, "batch_size": 8, "threads": 1},
    "tune": {"trials": 2, "epochs": 2, "heartbeat_seconds": 1},
    "retrain": {"seeds": 2},
}


@dataclass
class Project:
    """A project in a temporary folder.

    Attributes:
        root: Its folder.
        prefect: Address of the Prefect server for its flows; with None each starts its own.
    """

    root: Path
    prefect: str | None = None

    @property
    def log(self) -> Path:
        """Output of the last started flow; a file, since a pipe that nobody reads would block."""
        return self.root / "flow.log"

    @property
    def client(self) -> MlflowClient:
        uri = f"sqlite:///{self.root}/mlruns/mlflow.db"
        return MlflowClient(tracking_uri=uri, registry_uri=uri)

    def change(self, **sections: dict[str, object]) -> None:
        """Change settings in params.yaml."""
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for section, values in sections.items():
            params[section] = {**params.get(section, {}), **values}
        path.write_text(yaml.safe_dump(params))

    def start(self, *arguments: str, module: str = "flows.retrain") -> subprocess.Popen[bytes]:
        """Start the flow, or another module, in its own process."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_TRACK", "PREF"))
        }
        environment |= {"ONCOSHIFT_PROJECT": str(self.root), "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment["PREFECT_RUNNER_POLL_FREQUENCY"] = "2"  # seconds between checks for due runs; default 10
        if self.prefect is not None:
            environment["PREFECT_API_URL"] = self.prefect
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> str:
        """Run the flow to its end; return its output."""
        process = self.start(*arguments)
        try:
            code = process.wait(timeout=400)
        finally:
            with suppress(ProcessLookupError):  # a flow that is still running would train beside the next test
                os.killpg(process.pid, signal.SIGKILL)
        assert code == 0, self.log.read_text()[-6000:]
        return self.log.read_text()

    def run_until(self, reached: Callable[[], bool], what: str) -> None:
        """Run the flow until a condition on disk is met, then kill it at once."""
        process = self.start()
        self.wait_until(process, reached, what)
        os.killpg(process.pid, signal.SIGKILL)  # with its Prefect server, as when the machine loses power
        process.wait()

    def wait_until(self, process: subprocess.Popen[bytes], reached: Callable[[], bool], what: str) -> None:
        """Wait until a running process has met a condition on disk."""
        deadline = time.monotonic() + 240
        while not reached():
            assert process.poll() is None, f"ended before {what}: {self.log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"never reached: {what}"
            time.sleep(0.005)


def new_project(root: Path) -> Project:
    """Make a project as it is before its first retraining: settings, and no data."""
    shutil.copy(REPOSITORY / "dvc.yaml", root / "dvc.yaml")
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copytree(REPOSITORY / "presets", root / "presets")
    defaults = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for section, values in TINY.items():
        defaults[section] = {**defaults[section], **values} if isinstance(values, dict) else values
    (root / "params.yaml").write_text(yaml.safe_dump(defaults))
    return Project(root)


@pytest.fixture(scope="session")
def with_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after its data stages and with Prefect's database, to be copied."""

    def fill(root: Path) -> None:
        new_project(root)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            assert main(["phantom"]) == 0
        repro(root, "normalize")
        (root / ".prefect").mkdir()
        shutil.copy(make_prefect_database(tmp_path_factory), root / ".prefect")

    return make_once(tmp_path_factory, "with-data", fill)


@pytest.fixture(scope="module")
def bare_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return new_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, with_data: Path) -> Project:
    return Project(Path(shutil.copytree(with_data, tmp_path_factory.mktemp("project") / "copy", symlinks=True)))


@pytest.fixture(scope="session")
def prefect_server(prefect_home: Callable[[], Path]) -> Iterator[str]:
    """Address of a Prefect server for flows that no test kills.

    It is shared, since starting one takes longer than the flows' trainings.
    """
    folder = prefect_home()
    port = str(find_free_port())
    command = [sys.executable, "-m", "flows.server", port]
    environment = os.environ | {"PREFECT_HOME": str(folder)}
    pipe = subprocess.PIPE
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdin=pipe, stdout=pipe, stderr=log) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n", (folder / "log").read_text()[-4000:]
        yield f"http://127.0.0.1:{port}/api"
        server.stdin.close()  # which it takes for the end of its parent
        server.wait(timeout=60)
