"""What compose.yaml and the Kubernetes manifests promise, with merges and anchors resolved."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from flows.server import build_environment

REPOSITORY = Path(__file__).parents[2]
COMPOSED: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))
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


LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
"""A place that is taken under a lease in memory stays taken for ever if the server is killed."""


def test_the_leases_of_composes_prefect_server_outlive_its_container() -> None:
    service = COMPOSED["services"]["prefect"]
    environment = service["environment"]
    assert environment[LEASES] == build_environment(4200)[LEASES]
    mounts = {target: volume for volume, target in (each.split(":")[:2] for each in service["volumes"])}
    assert mounts[environment["PREFECT_HOME"]] in COMPOSED["volumes"]
    assert not any(environment["PREFECT_HOME"].startswith(each.partition(":")[0]) for each in service["tmpfs"])


def test_the_leases_of_kubernetes_prefect_server_outlive_its_pod() -> None:
    documents = yaml.safe_load_all((REPOSITORY / "deploy/kubernetes/servers.yaml").read_text(encoding="utf-8"))
    named = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    pod = named["Deployment", "prefect"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment[LEASES] == build_environment(4200)[LEASES]
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    (volume,) = (each for each in pod["volumes"] if each["name"] == mounts[environment["PREFECT_HOME"]])
    assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in named
