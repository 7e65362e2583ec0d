"""Retries of database operations for a bounded time while the study's database is unavailable."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, OperationalError

from oncoshift.errors import UnavailableError
from oncoshift.registry import waiting

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class DatabaseAwayError(UnavailableError):
    """The database of the studies does not answer."""


def patiently(operation: Callable[[], T], seconds: float, database: str) -> T:
    """Retry an operation while the database is away; see `waiting.retry_while_transient`.

    Args:
        operation: to run; it must be idempotent.
        seconds: for which to retry.
        database: its URL without a password, for messages.

    Raises:
        DatabaseAwayError: it did not come back in time.
        TrainingInterrupted: SIGTERM came.
    """

    def explain_transient(error: Exception) -> str | None:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        if not isinstance(cause, DatabaseAwayError | OperationalError | InterfaceError):
            return None
        reason = " ".join(str(getattr(cause, "orig", cause)).split()).removeprefix(f"tune.storage: {database}: ")
        return f"tune.storage: {database} does not answer ({reason})"

    try:
        return waiting.retry_while_transient(operation, explain_transient, seconds)
    except UnavailableError as error:
        raise DatabaseAwayError(f"{error}; start it again when it does, and the study resumes") from error
