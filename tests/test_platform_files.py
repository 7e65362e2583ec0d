"""What compose.yaml and deploy/kubernetes promise of log-in, roles, pools and credentials."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.servers_image import hide_what_it_lacks

from oncoshift.cli import build_parser

REPOSITORY = Path(__file__).resolve().parents[1]
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
COMPOSED: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
SERVICES = COMPOSED["services"]
USER = SERVICES["users"]["command"]
AUTH = {
    "compose.yaml": COMPOSED["configs"]["mlflow"]["content"],
    "deploy/kubernetes": (KUBERNETES / "auth.ini").read_text(),
}


def read_containers(file: str) -> dict[str, dict[str, Any]]:
    """Read the containers of all Deployments and Jobs in a file of deploy/kubernetes."""
    pods = [
        found["spec"]["template"]["spec"]
        for found in yaml.safe_load_all((KUBERNETES / file).read_text())
        if found["kind"] in ("Deployment", "Job")
    ]
    return {each["name"]: each for pod in pods for each in (*pod.get("initContainers", ()), *pod["containers"])}


def read_example(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("text", AUTH.values(), ids=AUTH)
def test_the_server_asks_oncoshift_who_may_promote(text: str) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(text)
    found = parser["mlflow"]
    assert found["default_permission"] == "NO_PERMISSIONS"
    module, _, function = found["authorization_function"].partition(":")
    assert callable(getattr(import_module(module), function))
    assert found["admin_username"] == "admin"


def test_the_image_of_the_servers_has_what_the_roles_import(tmp_path: Path) -> None:
    path = os.pathsep.join([str(hide_what_it_lacks(tmp_path)), str(REPOSITORY / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test"}
    command = [sys.executable, "-W", "ignore", "-c", "import oncoshift.registry.roles"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install --no-deps ." in (REPOSITORY / "Dockerfile").read_text().partition("AS train")[0]


def test_workers_log_in_as_a_trainer_that_is_made_before_them() -> None:
    given = build_parser().parse_args([re.sub(r"\$\{WORKER_ROLE:-(\w+)\}", r"\1", each) for each in USER])
    workers = [service for name, service in SERVICES.items() if name in ("worker", "worker-gpu")]
    assert {service["environment"]["MLFLOW_TRACKING_USERNAME"] for service in workers} == {given.name}
    assert given.role == "trainer"
    waiting = [*workers, SERVICES["worker-docker"]]  # whose containers log in
    assert all(service["depends_on"]["users"]["condition"] == "service_completed_successfully" for service in waiting)
    maker = SERVICES["users"]["environment"]
    assert maker["MLFLOW_TRACKING_USERNAME"] == SERVICES["mlflow"]["environment"]["MLFLOW_AUTH_ADMIN_USERNAME"]
    assert {service["environment"]["MLFLOW_TRACKING_PASSWORD"] for service in workers} == {maker["WORKER_PASSWORD"]}
    admins = [name for name, each in SERVICES.items() if "MLFLOW_PASSWORD" in json.dumps(each.get("environment"))]
    assert sorted(admins) == ["mlflow", "users"], "nobody else has the administrator's password"


def test_on_kubernetes_a_job_makes_project_user_and_deployments() -> None:
    containers = read_containers("deploy.yaml")
    assert list(containers) == ["project", "user", "deploy"]
    given = build_parser().parse_args(containers["user"]["args"])
    worker = read_example(KUBERNETES / "worker.example.env")
    assert (given.name, given.role) == (worker["MLFLOW_TRACKING_USERNAME"], "trainer")
    (mounted,) = containers["project"]["volumeMounts"]
    assert f"cp --recursive --no-clobber /project/. {mounted['mountPath']}/" in containers["project"]["args"][0]
    assert {"name": mounted["name"], "mountPath": "/project"} in containers["deploy"]["volumeMounts"]
    made = read_containers("worker.yaml")["pool"]["args"][-1]
    command = containers["deploy"]["command"]
    assert command[command.index("--pool") + 1] == made, "the pool that worker.yaml makes and serves"


@pytest.mark.parametrize("pool", ["process", "gpu", "docker"])
def test_each_pool_that_env_may_name_is_made_and_served(pool: str) -> None:
    (script,) = SERVICES["deployments"]["command"]
    assert re.search(rf"work-pool create .*\b{pool}$|for pool in [\w ]*\b{pool}\b", script, re.MULTILINE)
    assert any(["--pool", pool] == each["command"][i : i + 2] for each in SERVICES.values() if "command" in each
               for i in range(len(each["command"])))  # fmt: skip
    assert "--pool ${POOL:-process}" in script


@pytest.fixture
def platform(tmp_path: Path) -> Path:
    shutil.copytree(
        REPOSITORY / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("secrets.env", "worker.env")
    )
    return tmp_path


def make_credentials(platform: Path, *options: str) -> int:
    command = [sys.executable, str(platform / "deploy" / "credentials.py"), *options]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_credentials_of_compose_are_generated_once(platform: Path) -> None:
    assert make_credentials(platform) == 0
    path = platform / ".env"
    values = read_example(path)
    needed = set(re.findall(r"\$\{(\w+):\?", (REPOSITORY / "compose.yaml").read_text()))
    passwords = [values[name] for name in needed]
    assert len(set(passwords)) == len(needed)
    assert min(map(len, passwords)) >= 32
    assert values["WORKER_ROLE"] == "trainer"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert make_credentials(platform) == 1
    assert path.read_bytes() == before


def test_credentials_of_kubernetes_agree(platform: Path) -> None:
    assert make_credentials(platform, "--kubernetes") == 0
    secrets, worker = (read_example(platform / "deploy/kubernetes" / f"{name}.env") for name in ("secrets", "worker"))
    assert worker["PGPASSWORD"] == secrets["STUDIES_PASSWORD"]
    assert worker["PREFECT_API_AUTH_STRING"] == secrets["PREFECT_AUTH_STRING"] == f"admin:{secrets['PREFECT_PASSWORD']}"
    assert worker["MLFLOW_TRACKING_PASSWORD"] not in secrets.values()
    named = set(
        re.findall(r"name: secrets, key: (\w+)", "".join(path.read_text() for path in KUBERNETES.rglob("*.yaml")))
    )
    assert named <= secrets.keys()
    assert min(len(value) for name, value in secrets.items() if not name.startswith("PREFECT_AUTH")) >= 32
