"""The embedded store: a SQLite database and, beside it, the folder `artifacts`.

MLflow turns an empty file into a new database and trusts any other, so the file is checked before.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from oncoshift.errors import RegistryError
from oncoshift.registry.waiting import TRY_SECONDS, retry_while_transient

if TYPE_CHECKING:
    from collections.abc import Iterator

SQLITE = "sqlite:///"


def find_database(uri: str) -> Path | None:
    """Find the database of an embedded store; None for a server."""
    return Path(uri.removeprefix(SQLITE)).resolve() if uri.startswith(SQLITE) else None


def find_artifact_folder(database: Path) -> Path:
    """Find the folder in which an embedded store keeps artifacts."""
    return database.parent / "artifacts"


def check_absent(database: Path) -> None:
    """Check that a missing database has never existed.

    Raises:
        RegistryError: an earlier database left artifacts.
    """
    artifacts = find_artifact_folder(database)
    if artifacts.is_dir() and any(artifacts.iterdir()):
        raise RegistryError(
            f"{database}: is gone, but its artifacts are still in {artifacts}; restore it from a backup, "
            "or move that folder away to begin anew"
        )


def check_whole(database: Path) -> None:
    """Check that a database is intact and has tables; wait while another process has locked it.

    Raises:
        RegistryError: it is empty, damaged, or cannot be opened.
        UnavailableError: it stays locked.
    """

    def look() -> tuple[str, int]:
        with open_database(database) as connection:
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return str(answer), int(tables)

    answer, tables = retry_while_transient(look, lambda error: explain_lock(database, error))
    if answer != "ok":
        raise _make_damage_error(database, answer.splitlines()[-1])
    if tables == 0:
        raise RegistryError(
            f"{database}: is empty ({database.stat().st_size} bytes), and with it runs, versions and aliases are lost; "
            f"restore it from a backup, or delete it and move {find_artifact_folder(database)} away to begin anew"
        )


def wait_until_writable(database: Path) -> None:
    """Wait while another process writes to a database.

    Raises:
        RegistryError: it cannot be written to at all.
        UnavailableError: it stays locked.
    """

    def begin() -> None:
        with open_database(database) as connection:
            connection.execute("BEGIN IMMEDIATE")

    retry_while_transient(begin, lambda error: explain_lock(database, error))


@contextmanager
def open_database(database: Path) -> Iterator[sqlite3.Connection]:
    """Open an existing database; changes that are not committed are undone.

    Raises:
        RegistryError: it is damaged, or cannot be opened or written to.
        sqlite3.OperationalError: it is locked.
    """
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=TRY_SECONDS)) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        if explain_lock(database, error):
            raise
        remedy = "is it another program's?" if "no such" in str(error) else "may you read and write it and its folder?"
        raise RegistryError(f"{database}: {error}; {remedy}") from error
    except sqlite3.DatabaseError as error:
        raise _make_damage_error(database, error) from error


def _make_damage_error(database: Path, why: object) -> RegistryError:
    return RegistryError(
        f"{database}: is not an intact SQLite database ({why}); restore it from a backup, or save what is left by "
        f"`sqlite3 {database} .recover`"
    )


def explain_lock(database: Path, error: Exception) -> str | None:
    """Describe the error of a locked database; None for any other error."""
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return f"{database}: another process is writing to it"
    return None
