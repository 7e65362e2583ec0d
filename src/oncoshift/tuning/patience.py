"""A database that is away for a while: what was asked of it is asked again, for a bounded time."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, OperationalError

from oncoshift.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_PAUSE_SECONDS = 2.0
_log = logging.getLogger(__name__)


class DatabaseAwayError(UnavailableError):
    """The database of the studies does not answer."""


def patiently(operation: Callable[[], T], seconds: float, database: str) -> T:
    """Do something with a database, and do it again while the database is away.

    Args:
        operation: what to do; done twice it must come to the same as done once.
        seconds: for how long to try again.
        database: its URL without a password, for messages.

    Raises:
        DatabaseAwayError: it did not come back in time.
    """
    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            return operation()
        except (DatabaseAwayError, StorageInternalError, OperationalError, InterfaceError) as error:
            cause = error.__cause__ if isinstance(error, StorageInternalError) else error
            if not isinstance(cause, DatabaseAwayError | OperationalError | InterfaceError):
                raise
            reason = " ".join(str(getattr(cause, "orig", cause)).split()).removeprefix(f"tune.storage: {database}: ")
            if time.monotonic() >= deadline:
                raise DatabaseAwayError(
                    f"tune.storage: {database} does not answer{f' within {seconds:.0f} s' if seconds else ''} "
                    f"({reason}); start it again when it does: the study goes on"
                ) from None
        if not told:
            _log.warning("tune.storage does not answer (%s); trying again for %.0f s", reason, seconds)
            told = True
        time.sleep(_PAUSE_SECONDS)
