"""Command `gc`: what nothing needs any more, in a table, and with `--delete` its removal."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context
    from oncoshift.maintenance.collection import Collection

_DAYS = 30.0


def add_gc(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gc`."""
    parser.add_argument("--delete", action="store_true", help="remove what the table lists; without it, only list")
    parser.add_argument(
        "--days", type=float, default=_DAYS, metavar="N", help=f"keep all that is younger; default: {_DAYS:g}"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def gc(context: Context) -> None:
    """List what nothing needs, with sizes and reasons; with `--delete`, remove it."""
    from oncoshift.experiments import resolve_url
    from oncoshift.maintenance.backup import Stores
    from oncoshift.maintenance.collection import collecting, remove

    given, project = context.arguments, context.project
    studies = resolve_url(context.settings.tune.storage, project)
    stores = Stores.find(project, context.tracking_uri, studies, None)
    with collecting(stores, context.settings.tracking.experiment, given.days) as (found, client):
        _show(found, as_json=given.json)
        if not given.delete or client is None:
            return
        for garbage in found.garbage:
            remove(garbage, client, stores, given.days)
    if not given.json:
        print(f"removed: {found.size / 1e6:,.1f} MB")


def _show(found: Collection, *, as_json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from oncoshift.console import print_table

    for note in found.notes:
        print(f"warning: {note}", file=sys.stderr)
    rows = [
        {"kind": each.kind, "name": each.name, "bytes": each.size, "days": round(each.days, 1), "reason": each.reason}
        for each in found.garbage
    ]
    if as_json:
        print(json.dumps({"garbage": rows, "bytes": found.size, "notes": found.notes}, indent=2, ensure_ascii=False))
        return
    if not rows:
        print("nothing is garbage")
        return
    table = Table()
    for column in ("kind", "what", "MB", "days", "why it goes"):
        table.add_column(column, overflow="fold", justify="right" if column in ("MB", "days") else "left")
    for each in found.garbage:
        cells = (each.kind, each.name, f"{each.size / 1e6:,.1f}", f"{each.days:.0f}", each.reason)
        table.add_row(*(Text(cell) for cell in cells))
    print_table(table)
    print(f"{len(rows)} entries, {found.size / 1e6:,.1f} MB; `oncoshift gc --delete` removes them")
