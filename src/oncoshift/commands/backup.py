"""Commands `backup` and `restore`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context


def add_backup(parser: argparse.ArgumentParser) -> None:
    """Add the options of `backup`."""
    parser.add_argument("destination", type=Path, metavar="DEST", help="folder to make")
    parser.add_argument("--no-data", action="store_true", help="leave out DVC's objects, if a DVC remote has them")
    _add_artifacts(parser)


def add_restore(parser: argparse.ArgumentParser) -> None:
    """Add the options of `restore`."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder that `oncoshift backup` made")
    parser.add_argument("--to", type=Path, default=Path(), metavar="FOLDER", help="project's folder; default: here")
    parser.add_argument("--force", action="store_true", help="replace what is there; SQLite databases are kept as .bak")
    _add_artifacts(parser)


def _add_artifacts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--artifacts", type=Path, metavar="FOLDER",
        help="where a server keeps artifacts on this machine; default: beside an embedded store's database",
    )  # fmt: skip


def backup(context: Context) -> None:
    """Save registry, runs, artifacts, studies, data and settings as one folder."""
    from oncoshift.experiments import resolve_url
    from oncoshift.maintenance.backup import Stores, make_backup

    given, project = context.arguments, context.project
    studies = resolve_url(context.settings.tune.storage, project)
    stores = Stores.find(project, context.tracking_uri, studies, given.artifacts and given.artifacts.resolve())
    done = make_backup(stores, given.destination, print, data=not given.no_data)
    for note in done.notes:
        print(f"warning: {note}", file=sys.stderr)
    print(
        f"{given.destination}: {done.files} files, {done.size / 1e6:,.0f} MB; `sha256sum -c SHA256SUMS` there checks it"
    )


def restore(context: Context) -> None:
    """Restore a backup into a folder, and say which versions are live there."""
    from oncoshift.maintenance.restore import restore_backup
    from oncoshift.registry.history import CHAMPION
    from oncoshift.registry.models import list_models
    from oncoshift.registry.store import has_store, open_client

    given = context.arguments
    artifacts = given.artifacts and given.artifacts.resolve()
    stores = restore_backup(given.source, given.to, os.environ, print, artifacts=artifacts, force=given.force)
    if has_store(stores.tracking):
        for model in list_models(open_client(stores.tracking), None):
            if CHAMPION in model.aliases:
                print(f"{model.name}: version {model.aliases[CHAMPION]} is champion")
    print(f"{stores.project}: restored")
