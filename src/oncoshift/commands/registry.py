"""Commands on registered models: what is live, promote, roll back, score."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from mlflow import MlflowClient

    from oncoshift.commands.context import Context


def add_model(parser: argparse.ArgumentParser) -> None:
    """Options of `models`."""
    parser.add_argument("model", nargs="?", help="a registered model; default: oncoshift-<target>")


def add_promote(parser: argparse.ArgumentParser) -> None:
    """Options of `promote`."""
    parser.add_argument("version", help="the version that is to be champion")
    parser.add_argument("--model", help="default: oncoshift-<target>")
    parser.add_argument("--reason", required=True, help="why; kept with the version")
    parser.add_argument("--force", action="store_true", help="although the gate refused it, or it was rolled back")


def add_rollback(parser: argparse.ArgumentParser) -> None:
    """Options of `rollback`."""
    parser.add_argument("--model", help="default: oncoshift-<target>")
    parser.add_argument("--reason", required=True, help="why; kept with the version")


def add_score(parser: argparse.ArgumentParser) -> None:
    """Options of `score`."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--model", help="a model URI; default: models:/oncoshift-<target>@champion")


def models(context: Context) -> None:
    """List a model's versions, newest first."""
    from rich.console import Console
    from rich.table import Table

    from oncoshift.registry.promotion import describe

    name = _name(context)
    table = Table(title=name, title_justify="left")
    for column in ("version", "aliases", "gate", "created", "run", "history"):
        table.add_column(column)
    for row in describe(_client(context), name):
        events = [f"{event.kind} by {event.by}: {event.reason}" for event in row.events]
        gate = row.gate + (f", rolled back: {row.withdrawn}" if row.withdrawn else "")
        table.add_row(row.version, ", ".join(row.aliases), gate, row.created, row.run_id[:8], "\n".join(events))
    Console().print(table)


def promote(context: Context) -> None:
    """Make a version champion."""
    from oncoshift.registry.promotion import promote as run

    given, name = context.arguments, _name(context)
    run(_client(context), name, given.version, given.reason, getpass.getuser(), force=given.force)
    print(f"{name}: version {given.version} is champion")


def rollback(context: Context) -> None:
    """Go back to the previous champion."""
    from oncoshift.registry.promotion import rollback as run

    name = _name(context)
    version = run(_client(context), name, context.arguments.reason, getpass.getuser())
    print(f"{name}: version {version} is champion again")


def score(context: Context) -> None:
    """Score images with a registered model; CSV on stdout."""
    import mlflow
    import pandas as pd
    from mlflow.exceptions import MlflowException

    from oncoshift.errors import DataError, RegistryError

    files = [file for given in context.arguments.images for file in _files(given)]
    if not files:
        raise DataError(f"no image files in {', '.join(map(str, context.arguments.images))}")
    _client(context)
    mlflow.set_tracking_uri(_uri(context))
    uri = context.arguments.model or f"models:/{context.settings.registered_model}@champion"
    try:
        model = mlflow.pyfunc.load_model(uri)
    except MlflowException as error:
        raise RegistryError(f"{uri}: {error.message}; `oncoshift models` lists what there is") from error
    scored = model.predict(pd.DataFrame({"image": [file.read_bytes() for file in files]}))
    table = pd.DataFrame({"path": [str(file) for file in files]}).join(scored.reset_index(drop=True))
    table.to_csv(sys.stdout, index=False)


def _files(path: Path) -> list[Path]:
    from oncoshift.data.adapters.base import IMAGE_SUFFIXES
    from oncoshift.errors import DataError

    if path.is_dir():
        found = (file for file in path.rglob("*") if not file.name.startswith("."))
        return sorted(file for file in found if file.suffix.lower() in IMAGE_SUFFIXES)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    return [path]


def _name(context: Context) -> str:
    return context.arguments.model or context.settings.registered_model


def _uri(context: Context) -> str:
    from oncoshift.experiments import tracking_uri

    return tracking_uri(context.project, context.settings.tracking, os.environ)


def _client(context: Context) -> MlflowClient:
    from oncoshift.registry.store import open_client

    return open_client(_uri(context))
