"""The template of the pool `docker`, as Prefect's server and worker read it; no engine is asked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect import get_client
from prefect.blocks.system import Secret
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun

worker = pytest.importorskip("prefect_docker.worker", reason="pip install prefect-docker")

REPOSITORY = Path(__file__).parents[2]
TEMPLATE = json.loads((REPOSITORY / "deploy" / "compose" / "docker-pool.json").read_text())
COMPOSED = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
PASSWORDS = {"mlflow": "of-mlflow", "studies": "of-studies"}
GPUS = [{"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}]


async def build_settings(variables: dict[str, Any]) -> dict[str, Any]:
    """Build what the worker would give to Docker for a run, from the pool that the server keeps."""
    for name, password in PASSWORDS.items():
        await Secret(value=password).asave(name, overwrite=True)
    async with get_client() as client:
        pool = WorkPoolCreate(name="docker", type="docker", base_job_template=TEMPLATE)
        kept = (await client.create_work_pool(pool, overwrite=True)).base_job_template
    made = await worker.DockerWorkerJobConfiguration.from_template_and_values(kept, variables)
    made.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="retrain kidney"), worker_name="first", worker_id=uuid4())
    assert made._determine_image_pull_policy() is worker.ImagePullPolicy.IF_NOT_PRESENT, "it is in no registry"
    settings: dict[str, Any] = worker.DockerWorker._build_container_settings(None, None, made)
    return settings | {"networks": made.networks}


def test_a_run_is_a_container_with_project_stores_and_log_in(lasting_server: None) -> None:
    found = asyncio.run(
        build_settings({"gpus": GPUS, "memory": "16g", "env": {"PREFECT_API_URL": "http://prefect:4200/api"}})
    )
    assert found["entrypoint"] == ["env"], "that of the image is oncoshift"
    assert found["command"].startswith(("prefect ", "python "))
    assert found["volumes"] == [f"{COMPOSED['name']}_project:/project"]
    networks = COMPOSED["services"]["worker"]["networks"]
    assert found["networks"] == [f"{COMPOSED['name']}_{network}" for network in networks]
    wanted = COMPOSED["services"]["worker"]["environment"]
    given = found["environment"]
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "PREFECT_HOME"):
        assert given[name] == wanted[name]
    assert (given["MLFLOW_TRACKING_PASSWORD"], given["PGPASSWORD"]) == tuple(PASSWORDS.values())
    assert found["device_requests"] == GPUS
    assert (found["mem_limit"], found["image"]) == ("16g", "oncoshift-train:latest")
