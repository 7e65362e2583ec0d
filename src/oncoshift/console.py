"""Console output: tables on stdout; progress on stderr, a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

_LINES = 10


@contextmanager
def showing_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with the number of items done and the total."""
    with _displaying() as show:
        yield show(label)


@contextmanager
def showing_phases(label: str) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Yield a function that makes a named phase's progress function; each phase has its own bar."""
    with _displaying() as show:
        yield lambda phase: show(f"{label}: {phase}")


@contextmanager
def _displaying() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda label: report_tenths(label, lambda line: console.print(line, highlight=False, markup=False))
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        yield lambda label: _add_task(bar, label)


def _add_task(bar: Progress, label: str) -> Callable[[int, int], None]:
    """Add a line to the display, which appears when the first item is done."""
    task = bar.add_task(label, total=None, visible=False)
    return lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def report_tenths(label: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Make a function to call with the number of items done and the total; it prints ten lines."""
    shown = 0

    def show(done: int, total: int) -> None:
        nonlocal shown
        step = done * _LINES // max(total, 1)
        shown = min(shown, step)  # a new phase starts from zero
        if step > shown:
            shown = step
            say(f"{label}: {done}/{total}")

    return show


def print_table(table: Table) -> None:
    """Print a table, as wide as the terminal, or at its full width to a file or a pipe."""
    width = None if sys.stdout.isatty() else Console(width=10_000).measure(table).maximum
    Console(width=width).print(table)
