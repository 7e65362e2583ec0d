"""Moments of a retraining, counted in operations, at which a fault is caused.

An operation changes something outside the process: a file opened for writing, renamed or removed,
an SQL statement, or a part of an HTTP request. Python's audit events and SQLAlchemy's report each
of them just before it happens, so a process that is killed there has done all that came before,
and nothing after.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from collections.abc import Callable

_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "http.client.send", "subprocess.Popen"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Moment:
    """A moment of a retraining.

    Attributes:
        stage: step of the recipe.
        operation: number of the operation within the step, from 1, before which it is; the end of
            the step if it has fewer, as when it goes on.
        delay: seconds after that, for what the step's child processes do.
    """

    stage: str
    operation: int = 1
    delay: float = 0.0


class Clock:
    """Counts the operations of this process, and acts once at a moment.

    Args:
        moment: when to act; None for never.
        act: called at the moment, in the thread of the operation.
    """

    def __init__(self, moment: Moment | None, act: Callable[[], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.stage, self._entered = "", time.monotonic()
        self._moment, self._act = moment, act
        self._lock = threading.RLock()
        event.listen(Engine, "before_cursor_execute", lambda *_: self.count())
        event.listen(Engine, "commit", lambda *_: self.count())
        sys.addaudithook(self._hear)

    def _hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in _CHANGES or (name == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
            self.count()

    def count(self) -> None:
        """Count one operation of the present stage; those of heartbeats differ from run to run."""
        if not self.stage or threading.current_thread() is not threading.main_thread():
            return
        with self._lock:
            self.counts[self.stage] += 1
            due = self._moment
            if due is None or (due.stage, due.operation) != (self.stage, self.counts[self.stage]):
                return
            self._moment = None
        if due.delay:
            threading.Timer(due.delay, self._act).start()
        else:
            self._act()

    def enter(self, stage: str) -> None:
        """Begin a stage, or another part of it."""
        if stage != self.stage and self._moment is not None and self._moment.stage == self.stage:
            self._moment = None
            self._act()
        now = time.monotonic()
        self.seconds[self.stage] += now - self._entered
        self.stage, self._entered = stage, now
