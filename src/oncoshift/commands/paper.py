"""The command `paper`: the grid of arXiv 2601.14678 on one's own tiles, and its page of results."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from oncoshift.commands.retraining import run_flow

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context


def add_paper(parser: argparse.ArgumentParser) -> None:
    """Add the options of `paper`."""
    parser.add_argument("--list", action="store_true", help="list the rows, and exit")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="explain each pool's source-only and chosen model on explain.tiles test tiles (hours on a CPU)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the page here, with its pictures in img/ beside it"
    )


def paper(context: Context) -> None:
    """Run the Prefect flow in a process of its own, as `retrain` does.

    Raises:
        DataError: the data set is missing, or has no tile of an organ of a pool; or the page's
            folder is not writable.
        FlowError: the flow failed; its own output says why.
        SettingsError: a setting is not allowed, or the page's file.
        WeightsError: pretrained weights are missing or do not fit the network.
    """
    from oncoshift.training.interruption import stop_on_sigterm

    given = context.arguments
    context.need_project_params()
    if given.list:
        return _list_rows(context)
    stop_on_sigterm()
    _check(context)
    options = ["--explain"] if given.explain else []
    options += [] if given.out is None else ["--out", str(given.out.absolute())]
    return run_flow("flows.paper", context, options, "the grid")


def _check(context: Context) -> None:
    """Report mistakes of the user before Prefect starts."""
    from oncoshift.grid.page import prepare_page
    from oncoshift.grid.recipe import make_plan

    make_plan(
        context.project,
        preset=context.preset,
        overrides=tuple(context.arguments.overrides),
        environ=os.environ,
        say=print,
    )
    if context.arguments.out is not None:
        prepare_page(context.arguments.out)


def _list_rows(context: Context) -> None:
    from oncoshift.grid.rows import is_judged, list_rows

    rows, seeds = list_rows(context.settings), context.settings.retrain.seeds
    for row in rows:
        print(row.title)
    alone = sum(len(row.pool.sources) for row in rows if is_judged(row))
    each = "one seed" if seeds == 1 else f"{seeds} seeds"
    print(f"{len(rows)} rows of {each} each, and {alone} trainings for their verdicts", file=sys.stderr)
