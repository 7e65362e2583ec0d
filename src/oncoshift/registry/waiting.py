"""Waiting for a locked or unreachable store: for a limited time, and with a warning."""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from oncoshift.errors import UnavailableError
from oncoshift.training.interruption import find_interruption, stopping_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

patience: ContextVar[float | None] = ContextVar("patience", default=None)
"""Seconds to wait for a store, instead of each call's own limit; None: the call's own.

A call whose own limit is 0 is never repeated.
"""

WAIT_SECONDS = 60.0
"""Time for which a call is repeated."""

TRY_SECONDS = 3.0
"""Time-out of a single try where it can be chosen, and time after which a wait is reported."""

_PAUSE_SECONDS = 0.5
_QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

_log = logging.getLogger(__name__)


def retry_while_transient(
    attempt: Callable[[], T], explain_transient: Callable[[Exception], str | None], seconds: float = WAIT_SECONDS
) -> T:
    """Call `attempt`, again while it fails for a transient reason, and return its result.

    SIGTERM ends the waiting, also during training and where a library has wrapped it in its own
    error.

    Args:
        attempt: a call that can be repeated, also after it was done in part.
        explain_transient: describes an error that may pass by itself; returns None for others.
        seconds: time for which to try again, unless `patience` says another.

    Raises:
        UnavailableError: the error has not passed in time.
        TrainingInterrupted: SIGTERM was received.
    """
    began, told = time.monotonic(), False
    limit = seconds if seconds == 0 or (set_limit := patience.get()) is None else set_limit
    with stopping_at_once():
        while True:
            try:
                done = attempt()
            except Exception as error:
                if stop := find_interruption(error):
                    if stop is error:
                        raise
                    raise stop from error
                words, waited = explain_transient(error), time.monotonic() - began
                if words is None:
                    raise
                if waited >= limit:
                    raise UnavailableError(f"{words}; waited for {waited:.0f} s" if told else words) from error
            else:
                if told:
                    _log.warning("it answers again, after %.0f s", time.monotonic() - began)
                return done
            if waited >= TRY_SECONDS and not told:
                _log.warning("%s; waiting for up to %.0f s", words, limit)
                told = True
            time.sleep(min(2 * waited + 0.05, _PAUSE_SECONDS))  # most locks are brief


def explain_unavailable(error: Exception) -> str | None:
    """Describe an error that another wait has already found to be transient; None for others."""
    return str(error) if isinstance(error, UnavailableError) else None


def retry_while_away(attempt: Callable[[], T]) -> T:
    """Call `attempt` once, or within `waiting_for` again while the store is away."""
    return retry_while_transient(attempt, explain_unavailable, patience.get() or 0)


@contextmanager
def waiting_for(seconds: float) -> Iterator[None]:
    """Let each call of the block wait so long for a store that has gone away, such as a restart."""
    token = patience.set(seconds)
    try:
        yield
    finally:
        patience.reset(token)


@contextmanager
def trying_once() -> Iterator[None]:
    """Try each call of the block once and briefly, for a process that must end."""
    before = {name: os.environ.get(name) for name in _QUICK}
    token = patience.set(0)
    os.environ.update(_QUICK)
    try:
        yield
    finally:
        patience.reset(token)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
