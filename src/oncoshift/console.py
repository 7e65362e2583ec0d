"""What people see: tables on stdout; and progress on stderr, a bar on a terminal, a line every tenth elsewhere."""

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
    """Yield a function to call with how many items are done and how many there are."""
    with _displaying() as show:
        yield show(label)


@contextmanager
def showing_phases(label: str) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Yield a function that gives a progress function for a phase's name; each phase has its own bar."""
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
    """A line of the display, which appears when the first item is done."""
    task = bar.add_task(label, total=None, visible=False)
    return lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def report_tenths(label: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """A function to call with how many items are done and how many there are; it says so ten times in all."""
    shown = 0

    def show(done: int, total: int) -> None:
        nonlocal shown
        step = done * _LINES // max(total, 1)
        shown = min(shown, step)  # another phase counts from the start
        if step > shown:
            shown = step
            say(f"{label}: {done}/{total}")

    return show


def print_table(table: Table) -> None:
    """As wide as the terminal, or as the table is where a file or another program reads it."""
    width = None if sys.stdout.isatty() else Console(width=10_000).measure(table).maximum
    Console(width=width).print(table)
