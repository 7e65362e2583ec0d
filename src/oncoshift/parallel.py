"""Ordered parallel map over tiles, by threads, as decoders and kernels release the GIL."""

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
"""Called with the number of items done and the total."""

Phases = Callable[[str], Progress]
"""Makes the progress function of a named phase."""

_AHEAD = 16
"""Items queued ahead per thread; queueing all of them would take a kilobyte per tile."""


def ignore_progress(_phase: str) -> Progress:
    """Make a progress function that does nothing; a `Phases`."""
    return lambda _done, _total: None


def count_usable_cores() -> int:
    """Count the cores that this process may use; a container or a scheduler may limit them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Progress | None = None,
    threads: int | None = None,
) -> list[Result]:
    """Apply a function to all items with threads, and return the results in the items' order.

    Results stay in memory, so a function on images should write its image itself and return a
    record.

    Args:
        function: called from several threads.
        items: its arguments.
        progress: called with the number of items done and the total.
        threads: how many; None: one per core; 1: the caller's own.
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
