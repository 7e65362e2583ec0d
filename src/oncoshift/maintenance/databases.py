"""Whole copies of a database in use: SQLite by its online backup, PostgreSQL by its own tools."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

from sqlalchemy import NullPool, create_engine, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from oncoshift.errors import OncoshiftError, UnavailableError
from oncoshift.files import atomic
from oncoshift.registry.client import check_database
from oncoshift.registry.embedded import check_whole, explain_lock, find_database, open_database
from oncoshift.registry.relocation import back_up
from oncoshift.registry.waiting import retry_while_transient
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from pathlib import Path

_TAIL = 5
"""Lines of a tool's messages that an error shows."""


class DatabaseError(OncoshiftError):
    """A database cannot be copied: it is of another kind, a tool is missing, or a tool failed."""


def find_kind(url: str) -> str:
    """Find the kind of a database, `sqlite` or `postgresql`.

    Raises:
        DatabaseError: it is of another kind, or a server in front of one.
    """
    kind = url.partition("://")[0].partition("+")[0]
    if kind in ("sqlite", "postgresql"):
        return kind
    advice = (
        "is a server; run this where its database is, and name that: MLFLOW_TRACKING_URI=postgresql://…"
        if kind in ("http", "https")
        else "only SQLite and PostgreSQL can be saved and restored; use the tools of that database"
    )
    raise DatabaseError(f"{remove_credentials(url)}: {advice}")


def exists(url: str) -> bool:
    """Tell whether a database has any tables.

    Raises:
        UnavailableError: its server does not answer.
    """
    if find_kind(url) == "sqlite":
        return _find_file(url).is_file()
    check_database(url)
    engine = create_engine(url, poolclass=NullPool)
    return bool(inspect(engine).get_table_names())


def save(url: str, path: Path) -> None:
    """Write a copy of a database at one moment; other processes may go on using it.

    Args:
        url: its SQLAlchemy URL.
        path: file to write.

    Raises:
        DatabaseError: `pg_dump` is missing or fails.
        RegistryError: a SQLite database is damaged or empty.
        UnavailableError: the database does not answer.
    """
    if find_kind(url) == "postgresql":
        check_database(url)
        _run_tool("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={path}")
        return
    database = _find_file(url)

    def copy() -> None:
        with open_database(database) as connection, closing(sqlite3.connect(path)) as target:
            connection.backup(target)

    retry_while_transient(copy, lambda error: explain_lock(database, error))
    check_whole(path)


def load(url: str, path: Path, *, replace: bool) -> None:
    """Write a saved database to where a URL points, whole or not at all.

    Args:
        url: SQLAlchemy URL of the database to write; that of PostgreSQL must be there.
        path: file that `save` wrote.
        replace: whether to replace what is there; a SQLite file is kept as `.bak`.

    Raises:
        DatabaseError: `pg_restore` is missing or fails.
    """
    if find_kind(url) == "postgresql":
        over = ["--clean", "--if-exists"] if replace else []
        options = ["--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", *over]
        _run_tool("pg_restore", url, *options, str(path))
        return
    database = _find_file(url)
    if not database.is_file():
        with atomic(database) as temporary:
            shutil.copyfile(path, temporary)
        return
    back_up(database)

    def overwrite() -> None:
        # Not another file in its place: a server that has this one open would go on using it.
        with open_database(path) as source, open_database(database) as target:
            source.backup(target)

    retry_while_transient(overwrite, lambda error: explain_lock(database, error))


def _find_file(url: str) -> Path:
    if (database := find_database(url)) is None:
        raise DatabaseError(f"{url}: is not a file; give it as sqlite:///<path>")
    return database


def _run_tool(name: str, url: str, *options: str) -> None:
    """Run a tool of PostgreSQL; the password is in its environment, which `ps` does not show."""
    if shutil.which(name) is None:
        raise DatabaseError(
            f"{name} is not installed, and it alone saves and restores PostgreSQL; "
            "`apt install postgresql-client`, of the server's version or later"
        )
    target = make_url(url).set(drivername="postgresql")
    shown = target.set(password=None).render_as_string(hide_password=False)
    environment = os.environ | ({"PGPASSWORD": str(target.password)} if target.password else {})
    done = subprocess.run(
        [name, f"--dbname={shown}", *options], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = "\n".join(remove_credentials(done.stderr).strip().splitlines()[-_TAIL:])
        error = UnavailableError if "connection to server" in said else DatabaseError
        raise error(f"{name} of {remove_credentials(url)} failed with exit code {done.returncode}:\n{said}")


def read_schema_version(url: str) -> str:
    """Read the version of a database's tables, as Alembic records it; empty without one.

    Raises:
        DatabaseError: the database cannot be read.
    """
    try:
        with create_engine(url, poolclass=NullPool).connect() as connection:
            row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    except SQLAlchemyError as error:
        raise DatabaseError(f"{remove_credentials(url)}: {str(error).splitlines()[0]}") from None
    return "" if row is None else str(row[0])
