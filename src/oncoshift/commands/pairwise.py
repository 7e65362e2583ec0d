"""The command `compare RUN_A RUN_B`: two runs on the tiles that both predicted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from oncoshift.commands.context import Context
    from oncoshift.evaluation.comparison import Comparison
    from oncoshift.registry.predictions import RunPredictions
    from oncoshift.registry.tracking import Tracker


def compare_pair(context: Context, first: str, second: str) -> None:
    """Compare two runs, print the result, and save it as artifacts of the second run.

    Args:
        context: of the command.
        first: id, prefix of an id, or name of run A.
        second: the same of run B.

    Raises:
        DataError: they have no tile in common.
        RegistryError: a run is not found, is not the only one, or has no predictions.
    """
    from oncoshift.console import print_table
    from oncoshift.errors import DataError
    from oncoshift.evaluation.comparison import compare_predictions
    from oncoshift.registry.predictions import read_predictions

    tracker = _open_tracker(context)
    a, b = (read_predictions(tracker, given) for given in (first, second))
    if a.target != b.target:
        raise DataError(f"{a.title} adapts to {a.target} and {b.title} to {b.target}: compare runs of one target")
    found = compare_predictions((a.title, a.table), (b.title, b.table), a.target, context.settings.evaluate)
    saved = _save(tracker, a, b, found)
    if context.arguments.json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    print(f"A: {a.title}\nB: {b.title}")
    print_table(_build_table(found))
    for note in found.list_notes():
        print(note)
    print(f"saved as {saved} in run B")


def _open_tracker(context: Context) -> Tracker:
    """Open the store, without making one.

    Raises:
        RegistryError: there is none yet.
    """
    from oncoshift.errors import RegistryError
    from oncoshift.registry.store import has_store
    from oncoshift.registry.tracking import Tracker

    uri = context.tracking_uri
    if not has_store(uri):
        raise RegistryError(f"{uri}: no runs to compare yet: `oncoshift retrain` makes them")
    return Tracker(uri, context.settings.tracking.experiment)


def _save(tracker: Tracker, a: RunPredictions, b: RunPredictions, found: Comparison) -> str:
    """Save the comparison as JSON and Markdown in run B; return the path of the Markdown."""
    path = f"comparisons/{a.run_id[:8]}"
    tracker.log_json(b.run_id, found.to_dict(), f"{path}.json")
    tracker.log_text(b.run_id, found.to_markdown(), f"{path}.md")
    return f"{path}.md"


def _build_table(found: Comparison) -> Table:
    from rich.table import Table

    table = Table(title=found.title, title_justify="left")
    for column in ("metric", "A", "B", "B − A, paired over groups"):
        table.add_column(column, no_wrap=True)
    for row in found.list_rows():
        table.add_row(*row)
    return table
