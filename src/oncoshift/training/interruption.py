"""Handling of SIGTERM: a training ends at its next step with a checkpoint, all other work at once."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from oncoshift.errors import TrainingInterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_MESSAGE = "asked to stop; start it again and it goes on from there"


class _State(threading.local):
    """The state of a thread; the signal handler runs in the main thread and reads its state.

    Attributes:
        stop_requested: whether SIGTERM came during the present training.
        stops_at_once: whether SIGTERM ends the present block at once; see `stopping_at_once`.
    """

    stop_requested = False
    stops_at_once = False


_state = _State()


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM has come; restore the earlier handler afterwards.

    Only the main thread can take signals; in another one nothing changes, and the answer is always no.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
        asked.set()
        _state.stop_requested = True
        if _state.stops_at_once:
            raise TrainingInterrupted(_MESSAGE)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield asked.is_set
    finally:
        _state.stop_requested = False
        # Where a second one would cut short what the first one has to end, it is ignored: see `stop_on_sigterm`.
        signal.signal(signal.SIGTERM, signal.SIG_IGN if asked.is_set() and before is _stop else before)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Let SIGTERM end the block at once, also within a training: for long waits that can be repeated.

    Raises:
        TrainingInterrupted: SIGTERM came in the training before the block, or comes in it.
    """
    # Before it is asked whether one has come: one that comes in between then ends the block as well.
    before, _state.stops_at_once = _state.stops_at_once, True
    try:
        if _state.stop_requested:
            raise TrainingInterrupted(_MESSAGE)
        yield
    finally:
        _state.stops_at_once = before


def find_interruption(error: BaseException) -> TrainingInterrupted | None:
    """Find the interruption that led to an error, or None.

    SIGTERM raises wherever the process is, and a library that is called there may make an error of its own of it.
    """
    link: BaseException | None = error
    while link is not None and not isinstance(link, TrainingInterrupted):
        link = link.__cause__ or link.__context__
    return link


def stop_on_sigterm() -> None:
    """Let SIGTERM raise `TrainingInterrupted` from now on, outside `interruptible` trainings.

    Once: it is ignored from then on, also where a training took it, so that a second one does not stop what the first
    one has to end.
    """
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise TrainingInterrupted(_MESSAGE)
