"""A PostgreSQL server for tests: the one that a variable names, or one of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text
from support.ports import find_free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = os.environ.get("ONCOSHIFT_TEST_POSTGRESQL")
"""URL of a PostgreSQL server on which tests may make databases."""


@contextmanager
def making_database() -> Iterator[str]:
    """URL of an empty database, dropped after the block; the test is skipped without a server."""
    pytest.importorskip("psycopg2", reason="PostgreSQL: pip install psycopg2-binary")
    if SERVER is None:
        with _running_server() as url:
            yield url
        return
    engine = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    name = f"oncoshift_test_{os.getpid()}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield engine.url.set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def _running_server() -> Iterator[str]:
    """Start a server on a free port of this machine, for as long as the block runs."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("initdb") or "").parent]
    if not (binaries[-1] / "initdb").is_file():
        pytest.skip("PostgreSQL absent: apt-get install postgresql, or set ONCOSHIFT_TEST_POSTGRESQL to a server's URL")
    owner = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = Path(mkdtemp(prefix="oncoshift-postgresql-"))
    if owner is not None:
        os.chown(folder, pwd.getpwnam(owner).pw_uid, -1)

    def run(name: str, *arguments: str) -> None:
        command = [str(binaries[-1] / name), "--pgdata", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, user=owner, cwd=folder, stdout=subprocess.DEVNULL)

    port = find_free_port()
    try:
        run("initdb", "--username", "test", "--auth", "trust", "--no-sync")
        options = f"-h 127.0.0.1 -p {port} -k {folder} -F"
        run("pg_ctl", "--wait", "--log", str(folder / "log"), "--options", options, "start")
        try:
            yield f"postgresql+psycopg2://test@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "--wait", "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
