"""A lock on a study: only one process at a time may read it and act on what it read.

Optuna relies on the database's row locks, which SQLite lacks: two workers could take the same
waiting trial or requeue a killed one twice. On any database, two could both see that one trial is
left and start two.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError

from oncoshift.errors import SettingsError
from oncoshift.files import hold_lock
from oncoshift.tuning.patience import DatabaseAwayError

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEY = 0x6F6E636F  # "onco"; advisory locks are numbers


@contextmanager
def study_lock(url: str) -> Iterator[None]:
    """Hold the lock of a database's studies; it is released however the process ends.

    For SQLite it is a file beside the database, for PostgreSQL an advisory lock.

    Args:
        url: SQLAlchemy URL of the database.

    Raises:
        DatabaseAwayError: it cannot be reached.
        SettingsError: the URL is invalid, the kind of database is not supported, or its driver is
            missing.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError:
        raise SettingsError("tune.storage: not a database URL; give one such as sqlite:///runs/optuna.db") from None
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        with hold_lock(Path(f"{parsed.database}.lock")):
            yield
        return
    shown = parsed.render_as_string(hide_password=True)
    if backend != "postgresql":
        raise SettingsError(f"tune.storage: {shown}: must be a SQLite file or a PostgreSQL database")
    try:
        connection = create_engine(parsed, poolclass=NullPool).connect()
    except (ArgumentError, ImportError) as error:
        raise SettingsError(f"tune.storage: {shown}: {error}; install the database's driver") from None
    except OperationalError as error:
        raise DatabaseAwayError(f"tune.storage: {shown}: {' '.join(str(error.orig).split())}") from None
    with connection, connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _KEY})
        yield
