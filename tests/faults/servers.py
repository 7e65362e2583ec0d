"""A real MLflow server that is killed and started again, and one that loses its answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Self

from support.ports import find_free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_START_SECONDS = 300


class MlflowServer:
    """An MLflow server with a database and artifacts of its own, on a free port of 127.0.0.1.

    Args:
        folder: for its database, files and log.
        options: further options of `mlflow server`.
        environ: further variables.
    """

    def __init__(self, folder: Path, options: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> None:
        self.folder, self._port = folder, find_free_port()
        self._options, self._environ = options, os.environ | (environ or {})
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "files"), *self._options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environ, cwd=self.folder, stdout=log, stderr=log, process_group=0
            )
        for _ in range(10 * _START_SECONDS):
            assert self._process.poll() is None, (self.folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()  # noqa: S310 - of this machine
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        """End it and its workers by SIGKILL."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except AssertionError:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()
