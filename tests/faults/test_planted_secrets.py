"""Secrets in the environment are in nothing that a retraining writes, says or sends to a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2e.test_credentials import files_that_hold
from faults.retrainings import Project
from faults.servers import MlflowServer

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2hunter2"  # noqa: S105


@pytest.mark.slow
def test_no_secret_is_written_said_or_sent(tmp_path: Path) -> None:
    with MlflowServer(tmp_path / "server") as server:
        host = server.uri.removeprefix("http://")
        secrets = {
            "MLFLOW_TRACKING_URI": f"http://me:{SECRET}@{host}",
            "STUDY": SECRET,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "ONCOSHIFT_WEBHOOK_SECRET": SECRET,
            "PREFECT_API_KEY": SECRET,
        }
        project = Project(tmp_path / "project", secrets)
        project.change({"tune": {"storage": "sqlite:///runs/${STUDY}.db"}})
        project.grow(8)
        end = project.retrain()
    assert end.code == 0, end.output
    assert SECRET not in end.output
    found = files_that_hold(SECRET, project.root, server.folder)
    assert {path.name.removesuffix(".lock") for path in found} == {f"{SECRET}.db"}, "the study's database itself"
