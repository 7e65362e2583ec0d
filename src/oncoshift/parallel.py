"""Work on many tiles with threads (decoders and kernels let go of the interpreter), in order and with progress."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")

Progress = Callable[[int, int], None]
"""Called with how many items are done and how many there are."""

Phases = Callable[[str], Progress]
"""Gives the progress of one phase of the work, by the word for what is done in it."""

_AHEAD = 16
"""Items handed out ahead for each thread; all of them at once would hold a kilobyte for every tile."""


def ignore_progress(_phase: str) -> Progress:
    """`Phases` that nobody watches."""
    return lambda _done, _total: None


def count_usable_cores() -> int:
    """Cores that this process may use, which a container or a scheduler may hold below what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Progress | None = None,
    threads: int | None = None,
) -> list[Result]:
    """The results of `function` in the items' order, whatever order the threads finish in.

    Results stay in memory, so a function on images should write its image where it belongs and return a record.

    Args:
        function: called from several threads.
        items: its arguments.
        progress: called with items done and in all.
        threads: how many; None: one a core; 1: none but the caller's.
    """
    results: list[Result] = []

    def done(result: Result) -> None:
        results.append(result)
        if progress is not None:
            progress(len(results), len(items))

    count = threads or count_usable_cores()
    if count == 1:
        for item in items:
            done(function(item))
        return results
    waiting: deque[Future[Result]] = deque()
    rest = iter(items)
    with ThreadPoolExecutor(count) as pool:
        try:
            waiting.extend(pool.submit(function, item) for item in islice(rest, count * _AHEAD))
            while waiting:
                done(waiting.popleft().result())
                waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
        finally:
            for future in waiting:
                future.cancel()
    return results
