"""The part of `doctor` about champions that were moved outside oncoshift, as by hand in the UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from mlflow import MlflowClient

    from oncoshift.commands.context import Context


def add_champions(parser: argparse.ArgumentParser) -> None:
    """Add the options of `doctor` about champions."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--record", action="store_true", help="record all champions that were moved by hand")
    choice.add_argument("--undo", action="store_true", help="make the champions before champions again, of all models")
    parser.add_argument("--reason", default="found by oncoshift doctor", help="why, for the history")


def check_champions(context: Context) -> tuple[list[str], list[str]]:
    """Compare every model's champion with its history; with `--record` or `--undo`, settle it.

    Returns:
        What was settled, and the problems that are left; a line each.
    """
    from oncoshift.errors import RegistryError
    from oncoshift.registry.manual import find_manual_change
    from oncoshift.registry.models import list_models
    from oncoshift.registry.store import has_store, open_client

    uri = context.tracking_uri
    settled: list[str] = []
    problems: list[str] = []
    if not has_store(uri):
        return settled, problems
    client = open_client(uri)
    for model in list_models(client):
        change = find_manual_change(client, model.name)
        if change is None:
            continue
        before = f"version {change.replaced}" if change.replaced else "none"
        now = f"version {change.champion}" if change.champion else "none"
        if context.arguments.record or context.arguments.undo:
            try:
                settled.append(f"{model.name}: {_settle(context, client, model.name, before, now)}")
            except RegistryError as error:  # the other models are settled all the same
                problems.append(str(error))
        else:
            undo = "`--undo` reverts it" if change.replaced else "to have none again, delete the alias in MLflow's UI"
            problems.append(
                f"{model.name}: its champion was moved outside oncoshift: {now} instead of {before}, the last in its "
                f"history; `oncoshift doctor --record` keeps it, {undo}"
            )
    return settled, problems


def _settle(context: Context, client: MlflowClient, name: str, before: str, now: str) -> str:
    from oncoshift.registry.manual import record_manual_change, undo_manual_change
    from oncoshift.user import find_user_name

    if context.arguments.undo:
        undo_manual_change(client, name, context.arguments.reason, find_user_name())
        return f"champion is {before} again, and the history says so"
    record_manual_change(client, name, context.arguments.reason, find_user_name())
    return f"champion is {now}, and now the history says so"
