"""A PostgreSQL server for tests: the one that a variable names, or one of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import contextmanager, suppress
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
        with running_server() as server:
            yield server.url
        return
    engine = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    name = f"oncoshift_test_{os.getpid()}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield engine.url.set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


class PostgresqlServer:
    """A server on a free port of this machine, which can be stopped and started again.

    Args:
        folder: for its files; exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, find_free_port()
        self._owner = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
        if self._owner is not None:
            os.chown(folder, pwd.getpwnam(self._owner).pw_uid, -1)
        self._run("initdb", "--username", "test", "--auth", "trust", "--no-sync")

    @property
    def url(self) -> str:
        """URL of its database."""
        return f"postgresql+psycopg2://test@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-h 127.0.0.1 -p {self._port} -k {self._folder} -F"
        self._run("pg_ctl", "--wait", "--log", str(self._folder / "log"), "--options", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: `fast` ends its connections with an error, `immediate` is a crash."""
        self._run("pg_ctl", "--wait", "--mode", mode, "stop")

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(find_binaries() / name), "--pgdata", str(self._folder / "data"), *arguments]
        subprocess.run(command, check=True, user=self._owner, cwd=self._folder, stdout=subprocess.DEVNULL)


def find_binaries() -> Path:
    """Find the folder of PostgreSQL's server programs; the test is skipped without."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("initdb") or "").parent]
    if not (binaries[-1] / "initdb").is_file():
        pytest.skip("PostgreSQL absent: apt-get install postgresql, or set ONCOSHIFT_TEST_POSTGRESQL to a server's URL")
    return binaries[-1]


@contextmanager
def running_server() -> Iterator[PostgresqlServer]:
    """Run a server for as long as the block does."""
    find_binaries()
    folder = Path(mkdtemp(prefix="oncoshift-postgresql-"))
    try:
        server = PostgresqlServer(folder)
        server.start()
        try:
            yield server
        finally:
            with suppress(subprocess.CalledProcessError):  # the test has stopped it
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
