"""Handling of SIGTERM: a training stops at its next step with a checkpoint, other work at once."""

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
        stop_requested: whether SIGTERM came during the current training.
        stops_at_once: whether SIGTERM ends the current block at once; see `stopping_at_once`.
    """

    stop_requested = False
    stops_at_once = False


_state = _State()


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM came; restore the previous handler afterwards.

    Only the main thread receives signals; in another thread the function always returns False.
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
        # A second SIGTERM must not cut short the shutdown that the first one started: see
        # `stop_on_sigterm`.
        signal.signal(signal.SIGTERM, signal.SIG_IGN if asked.is_set() and before is _stop else before)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Let SIGTERM end the block at once, even in a training; for long, repeatable waits.

    Raises:
        TrainingInterrupted: SIGTERM came during the training before the block, or within it.
    """
    # Set before the check, so that a signal between the two ends the block as well.
    before, _state.stops_at_once = _state.stops_at_once, True
    try:
        if _state.stop_requested:
            raise TrainingInterrupted(_MESSAGE)
        yield
    finally:
        _state.stops_at_once = before


def find_interruption(error: BaseException) -> TrainingInterrupted | None:
    """Find the interruption that led to an error, or None.

    The handler raises wherever the process is, and a library running there may wrap the exception
    in its own.
    """
    link: BaseException | None = error
    while link is not None and not isinstance(link, TrainingInterrupted):
        link = link.__cause__ or link.__context__
    return link


def stop_on_sigterm() -> None:
    """Let SIGTERM raise `TrainingInterrupted` from now on, outside `interruptible` trainings.

    Only the first SIGTERM counts, even if a training handled it: later ones are ignored, so that
    they do not cut the shutdown short.
    """
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise TrainingInterrupted(_MESSAGE)
