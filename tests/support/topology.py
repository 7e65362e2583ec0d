"""The servers of a team: PostgreSQL, an S3 store, and MLflow with log-in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
import requests
from sqlalchemy import NullPool, create_engine, make_url, text
from support.ports import find_free_port
from support.postgresql import making_database

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BUCKET = "oncoshift"
ADMIN = "admin"
TRAINER = "trainer"
PASSWORD = "of-a-test-only"  # noqa: S105
"""Password of both users; MLflow wants twelve characters."""

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
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": TRAINER,
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        }

    def list_objects(self) -> list[str]:
        """List the keys of all objects in the S3 store."""
        store = _connect_to_s3(self.s3)
        pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]


@contextmanager
def running_tracking(folder: Path) -> Iterator[Tracking]:
    """Run PostgreSQL, the S3 store and MLflow for as long as the block does.

    The test is skipped without PostgreSQL. The users are `ADMIN` and `TRAINER`.

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
        users = folder / "users.ini"
        users.write_text(
            f"[mlflow]\ndefault_permission = READ\nadmin_username = {ADMIN}\n"
            f"database_uri = {create_database(database, 'users')}\n"
            "auth_cache_ttl_seconds = 60\n"  # a hash of every request's password would cost most of its time
        )
        command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1"]
        command += ["--app-name", "basic-auth", "--allowed-hosts", f"127.0.0.1:{mlflow}"]
        command += ["--backend-store-uri", create_database(database, "mlflow")]
        command += ["--artifacts-destination", f"s3://{BUCKET}/mlflow"]
        settings = {
            "MLFLOW_AUTH_CONFIG_PATH": str(users),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test",
            "MLFLOW_S3_ENDPOINT_URL": s3,
            **_S3,
        }
        stack.enter_context(_running(command, f"{uri}/health", folder / "mlflow.log", settings))
        made = Tracking(uri, s3, database, folder / "s3.log")
        _create_trainer(uri)
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


def _create_trainer(uri: str) -> None:
    """Create the user of the workers, and wait for the first request, which MLflow prepares for."""
    admin, api = (ADMIN, PASSWORD), f"{uri}/api/2.0/mlflow"
    user = {"username": TRAINER, "password": PASSWORD}
    requests.post(f"{api}/users/create", json=user, auth=admin, timeout=_START_SECONDS).raise_for_status()
    search = {"max_results": 1}
    requests.post(f"{api}/experiments/search", json=search, auth=admin, timeout=_START_SECONDS).raise_for_status()


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
