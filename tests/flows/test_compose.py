"""What compose.yaml promises of its workers, with merges and anchors resolved as Compose does."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

COMPOSED: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text(encoding="utf-8"))
WORKERS = [name for name, service in COMPOSED["services"].items() if "worker" in service.get("entrypoint", ())]


@pytest.mark.parametrize("name", WORKERS)
def test_the_locks_of_a_workers_runs_outlive_its_container(name: str) -> None:
    """Without them, a run that was killed with its container would stay Running in Prefect."""
    service = COMPOSED["services"][name]
    home = PurePosixPath(service["environment"]["PREFECT_HOME"])
    mounts = {PurePosixPath(target): volume for volume, target in (each.split(":")[:2] for each in service["volumes"])}
    (kept,) = (volume for target, volume in mounts.items() if home.is_relative_to(target))
    assert kept in COMPOSED["volumes"], "a named volume, and no folder of the container"
    assert not any(home.is_relative_to(each.partition(":")[0]) for each in service["tmpfs"])


def test_there_are_workers() -> None:
    assert WORKERS == ["worker", "worker-gpu"]
