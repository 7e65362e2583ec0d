"""One process at a time may look at a study and act on what it saw.

Optuna leaves this to the database's row locks, and SQLite has none: two workers can take one waiting trial, or requeue
one killed trial twice; and on any database two can both see that one trial is left, and begin two.
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
    """Hold the studies of a database. A process or a connection that ends, however it ends, lets go.

    On SQLite it is a file beside the database, on PostgreSQL an advisory lock.

    Args:
        url: SQLAlchemy URL of the database.

    Raises:
        DatabaseAwayError: it cannot be reached.
        SettingsError: another kind of database, or no driver for it.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError:
        raise SettingsError("tune.storage: is no database URL, like sqlite:///runs/optuna.db") from None
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
