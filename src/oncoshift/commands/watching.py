"""The command `watch`: a new unlabelled batch against what a model was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context
    from oncoshift.watching.job import Watched


def add_watch(parser: argparse.ArgumentParser) -> None:
    """Add the options of `watch`."""
    parser.add_argument("batch", type=Path, help="new tiles: a folder, a CSV, a .zip or a .tar")
    parser.add_argument("--model", help="a model URI or folder; default: models:/oncoshift-<target>@champion")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if anything has passed its limit")


def watch(context: Context) -> int:
    """Compare a batch with the training tiles of a model, and record it in MLflow.

    Returns:
        1 with `--strict` if anything has passed its limit, else 0.
    """
    from oncoshift.commands.scoring import locate_model
    from oncoshift.console import showing_progress
    from oncoshift.training.interruption import stop_on_sigterm
    from oncoshift.watching.job import watch_batch

    stop_on_sigterm()
    given, pages = context.arguments, context.project / "runs" / "watch"
    uri, store = locate_model(context)
    with showing_progress("watch") as progress:
        watched = watch_batch(given.batch, uri, store, context.settings, pages, progress)
    outcome = watched.outcome
    if given.json:
        found = {"run": watched.run, "page": watched.page and str(watched.page), **outcome.to_dict()}
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        show(watched)
    return 1 if outcome.alarms and given.strict else 0


def show(watched: Watched) -> None:
    """Print what was found of a batch."""
    from rich.table import Table
    from rich.text import Text

    from oncoshift.console import print_table

    outcome = watched.outcome
    groups = "unknown groups" if outcome.groups is None else f"{outcome.groups} groups"
    model = f"{outcome.model.name} version {outcome.model.version}" if outcome.model.version else outcome.model.name
    table = Table(title=f"{outcome.batch}: {outcome.tiles} of {outcome.total} tiles, {groups}, by {model}")
    for column in ("signal", "shift", "alarm from", "p", ""):
        table.add_column(column, overflow="fold")
    for signal in outcome.signals:
        cells = (signal.name, f"{signal.shift:.2f}", f"{signal.limit:.2f}", f"{signal.p:.3f}", signal.words)
        table.add_row(*map(Text, cells), style="red" if signal.alarm else "")
    print_table(table)
    print(f"balanced accuracy, estimated without labels: {outcome.estimate}")
    print(outcome.words)
    if watched.page is not None:
        again = "" if watched.is_new else "judged before; "
        print(f"{again}run {watched.run}; all batches: {watched.page}")
