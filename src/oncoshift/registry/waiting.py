"""Waiting for a store that another process has locked, or that is away: for a bounded time, and not in silence."""

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
"""For how many seconds a store is waited for, whatever the call says; None: as the call says."""

TRY_SECONDS = 3.0
"""For a single try where it can be chosen, and for how long a wait is not told."""

_PAUSE_SECONDS = 0.5
_QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

_log = logging.getLogger(__name__)


def retry_while_transient(
    attempt: Callable[[], T], explain_transient: Callable[[Exception], str | None], seconds: float = 60
) -> T:
    """What `attempt` returns, tried again while it fails for a reason that may pass.

    SIGTERM ends the waiting, also in a training, and where a library made an error of its own of it.

    Args:
        attempt: can be done again, also where it was done in part.
        explain_transient: what is the matter, in words, if an error may pass by itself; None if not.
        seconds: for how long to try again.

    Raises:
        UnavailableError: it has not passed in time.
        TrainingInterrupted: SIGTERM came.
    """
    began, told = time.monotonic(), False
    limit = seconds if (set_limit := patience.get()) is None else set_limit
    with stopping_at_once():
        while True:
            try:
                return attempt()
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
            if waited >= TRY_SECONDS and not told:
                _log.warning("%s; waiting for up to %.0f s", words, limit)
                told = True
            time.sleep(min(2 * waited + 0.05, _PAUSE_SECONDS))  # most locks are held for a moment only


@contextmanager
def trying_once() -> Iterator[None]:
    """Give each call of the block one quick try: for a process that is to end, with or without the store."""
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
