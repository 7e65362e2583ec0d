"""The servers of a team: PostgreSQL, an S3 store, and MLflow with log-in and roles."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
import requests
from sqlalchemy import NullPool, create_engine, make_url, text
from support.ports import find_free_port
from support.postgresql import making_database
from support.servers_image import hide_what_it_lacks

from oncoshift.cli import main
from oncoshift.registry.users import PROMOTER, TRAINER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BUCKET = "oncoshift"
ADMIN = "admin"
WORKER = "worker"
APPROVER = "anna"
PASSWORD = "of-a-test-only"  # noqa: S105
"""Password of all users; MLflow wants twelve characters."""

_REPOSITORY = Path(__file__).resolve().parents[2]
_AUTH = _REPOSITORY / "deploy" / "kubernetes" / "auth.ini"

_START_SECONDS = 300
_S3 = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Tracking:
    """An MLflow server that keeps records in PostgreSQL and artifacts in the S3 store.

    Attributes:
        uri: Its address, without credentials.
        s3: Address of the S3 store.
        database: URL of the PostgreSQL server's first database.
        log: The S3 store's log of requests.
    """

    uri: str
    s3: str
    database: str
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a worker needs to log in; it knows neither database nor S3 store."""
        return {"MLFLOW_TRACKING_URI": self.uri, **log_in(WORKER)}

    def list_objects(self) -> list[str]:
        """List the keys of all objects in the S3 store."""
        store = _connect_to_s3(self.s3)
        pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]


@contextmanager
def running_tracking(folder: Path) -> Iterator[Tracking]:
    """Run PostgreSQL, the S3 store and MLflow for as long as the block does.

    The test is skipped without PostgreSQL. MLflow runs with the configuration that is shipped, and
    without what the servers' image lacks. Its users are `ADMIN`, a trainer `WORKER` and a promoter
    `APPROVER`.

    Args:
        folder: for logs and the configuration of log-in.
    """
    with ExitStack() as stack:
        database = stack.enter_context(making_database())
        port, mlflow = find_free_port(), find_free_port()
        s3, uri = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{mlflow}"
        moto = "import sys; from moto.server import main; main(sys.argv[1:])"
        stack.enter_context(_running(["-c", moto, "-H", "127.0.0.1", "-p", str(port)], s3, folder / "s3.log", {}))
        _connect_to_s3(s3).create_bucket(Bucket=BUCKET)
        users = folder / "auth.ini"
        shipped, accounts = _AUTH.read_text(), create_database(database, "users")
        users.write_text(re.sub("^database_uri = .*$", f"database_uri = {accounts}", shipped, flags=re.MULTILINE))
        command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1"]
        command += ["--app-name", "basic-auth", "--allowed-hosts", f"127.0.0.1:{mlflow}"]
        command += ["--backend-store-uri", create_database(database, "mlflow")]
        command += ["--artifacts-destination", f"s3://{BUCKET}/mlflow"]
        settings = {
            "MLFLOW_AUTH_CONFIG_PATH": str(users),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test",
            "MLFLOW_S3_ENDPOINT_URL": s3,
            "PYTHONPATH": os.pathsep.join([str(hide_what_it_lacks(folder)), os.environ.get("PYTHONPATH", "")]),
            **_S3,
        }
        stack.enter_context(_running(command, f"{uri}/health", folder / "mlflow.log", settings))
        made = Tracking(uri, s3, database, folder / "s3.log")
        _create_users(uri)
        yield made


def create_database(url: str, purpose: str) -> str:
    """Create a database beside another one of a PostgreSQL server; return its URL."""
    first = make_url(url)
    name = f"{first.database}_{purpose}"
    engine = create_engine(first, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    return first.set(database=name).render_as_string(hide_password=False)


def _connect_to_s3(url: str):  # type: ignore[no-untyped-def] # boto3 has no types
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=url, **keys)


def log_in(user: str) -> dict[str, str]:
    """Build the environment variables by which a user logs in."""
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": PASSWORD}


def _create_users(uri: str) -> None:
    """Create the users, after the first request, which MLflow prepares for."""
    search = f"{uri}/api/2.0/mlflow/experiments/search"
    asked = requests.post(search, json={"max_results": 1}, auth=(ADMIN, PASSWORD), timeout=_START_SECONDS)
    asked.raise_for_status()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in log_in(ADMIN).items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("NEW_PASSWORD", PASSWORD)
        patch.chdir(_REPOSITORY)
        for user, role in {WORKER: TRAINER, APPROVER: PROMOTER}.items():
            assert main(["user", user, "--role", role, "--password-variable", "NEW_PASSWORD"]) == 0


@contextmanager
def _running(arguments: list[str], url: str, log: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """Run a server of Python until the block ends; it is ready once it answers at an address."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments], env=os.environ | settings, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url):
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()  # noqa: S310 - of this machine
    except OSError:
        return False
    return True
