"""Commands about registered models: list, promote, roll back, and relocate their store."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from oncoshift.commands.context import add_last

if TYPE_CHECKING:
    import argparse

    from mlflow import MlflowClient

    from oncoshift.commands.context import Context
    from oncoshift.errors import RegistryError


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options of `models`."""
    parser.add_argument("--json", action="store_true", help="print a JSON list with all details of each version")
    add_last(parser, "versions; those with an alias are always listed")
    parser.add_argument("model", nargs="?", help="a registered model; default: oncoshift-<target>")


def add_promote(parser: argparse.ArgumentParser) -> None:
    """Add the options of `promote`."""
    parser.add_argument("version", help="version to make champion")
    parser.add_argument("--model", help="default: oncoshift-<target>")
    parser.add_argument("--reason", required=True, help="reason, kept with the version")
    parser.add_argument("--to", metavar="URI", help="copy it with its evidence to this tracking server first")
    parser.add_argument("--force", action="store_true", help="even if the gate refused it or it was rolled back")


def add_approve(parser: argparse.ArgumentParser) -> None:
    """Add the options of `approve`."""
    parser.add_argument("version", help="version that awaits approval")
    parser.add_argument("--model", help="default: oncoshift-<target>")
    parser.add_argument("--reason", required=True, help="reason, kept with the version")
    parser.add_argument("--refuse", action="store_true", help="refuse it")


def add_rollback(parser: argparse.ArgumentParser) -> None:
    """Add the options of `rollback`."""
    parser.add_argument("--model", help="default: oncoshift-<target>")
    parser.add_argument("--reason", required=True, help="reason, kept with the version")


def add_pull(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pull`."""
    parser.add_argument("--dest", type=Path, required=True, metavar="DIR", help="folder to write; absent or empty")
    parser.add_argument("--target", help="whose champion; default: the settings' target")
    parser.add_argument("--model", help="a model URI instead, for example models:/oncoshift-lung/3")
    parser.add_argument(
        "--um-per-pixel",
        type=float,
        metavar="UM",
        help="scale of the training tiles for WSInfer; default: the model's",
    )


def pull(context: Context) -> None:
    """Write a registered model into a folder that runs by itself."""
    from oncoshift.registry.loading import is_in_store
    from oncoshift.registry.pull import pull as run

    given = context.arguments
    name = f"oncoshift-{given.target}" if given.target else None
    uri = given.model or f"models:/{name or context.settings.registered_model}@champion"
    store = context.tracking_uri if is_in_store(uri) else None
    for line in run(uri, store, given.dest, given.um_per_pixel):
        print(line, file=sys.stderr)
    print(f"{uri}: pulled into {given.dest}; README.md is its card, and example.py shows how to run it")


def models(context: Context) -> None:
    """List a model's versions, newest first."""
    from rich.table import Table
    from rich.text import Text

    from oncoshift.console import print_table
    from oncoshift.registry.history import list_versions

    name = _choose_model_name(context)
    rows = list_versions(open_registry(context), name, context.arguments.last)
    if context.arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
        return
    table = Table(title=Text(name), title_justify="left")
    for column in ("version", "aliases", "gate", "created", "run", "history (UTC)"):
        table.add_column(column, overflow="fold")
    for row in rows:
        events = [f"{event.at[:16].replace('T', ' ')} {event.words}" for event in row.events]
        gate = row.gate + (f", {row.approval}" if row.approval else "")
        gate += f", forced by {row.forced}" if row.forced else ""
        gate += f", rolled back: {row.withdrawn}" if row.withdrawn else ""
        cells = (row.version, ", ".join(row.aliases), gate, row.created, row.run_id[:8], "\n".join(events))
        table.add_row(*(Text(cell) for cell in cells))  # people typed names and reasons: no markup
    print_table(table)
    if context.arguments.last and len(rows) >= context.arguments.last:
        print("older versions are left out; `--last 0` lists all")


def promote(context: Context) -> None:
    """Make a version champion, here or, after a copy, on another server."""
    from oncoshift.registry.history import RefusedVersionError
    from oncoshift.registry.promotion import promote as run
    from oncoshift.user import find_user_name

    given, name = context.arguments, _choose_model_name(context)
    if given.to is not None:
        _promote_elsewhere(context, name)
        return
    client, reason = open_registry(context), _read_reason(context)
    try:
        done = run(client, name, given.version, reason, find_user_name(), force=given.force)
    except RefusedVersionError as error:
        forced = f"`oncoshift promote {_name_version(context)} --force`"
        approved = f"`oncoshift approve {_name_version(context)}`"
        advice = f"{approved}, or {forced}, promotes it" if error.awaits else f"{forced} promotes it all the same"
        raise _add_advice(error, advice) from error
    if done:
        print(f"{name}: version {given.version} is champion")
    else:
        print(f"{name}: version {given.version} is champion already; nothing changed, no reason recorded")


def _promote_elsewhere(context: Context, name: str) -> None:
    from oncoshift.registry.history import RefusedVersionError
    from oncoshift.registry.promotion import promote as run
    from oncoshift.registry.tracking import Tracker
    from oncoshift.registry.transfer import copy_version
    from oncoshift.secrets import remove_credentials
    from oncoshift.user import find_user_name

    given, by, reason = context.arguments, find_user_name(), _read_reason(context)
    target = Tracker(given.to, context.settings.tracking.experiment)
    try:
        copy = copy_version(open_registry(context), name, given.version, target, by, reason)
    except RefusedVersionError as error:
        if not error.awaits:
            raise
        raise _add_advice(error, f"`oncoshift approve {_name_version(context)}` promotes it here") from error
    try:
        run(target.client, name, copy, reason, by, force=given.force)
    except RefusedVersionError as error:
        command = f"`oncoshift promote {_name_version(context)} --to {given.to} --force`"
        raise _add_advice(error, f"{command} promotes it all the same") from error
    print(f"{name}: version {given.version} is version {copy} of {remove_credentials(given.to)}, and champion there")


def _name_version(context: Context) -> str:
    """Return the arguments that name the version, as they were given."""
    given = context.arguments
    return f"{given.version} --model {given.model}" if given.model else str(given.version)


def _add_advice(error: RegistryError, advice: str) -> RegistryError:
    """Return an error with advice at the end of its first line."""
    from oncoshift.errors import RegistryError

    first, *others = str(error).split("\n")
    return RegistryError("\n".join([f"{first}; {advice}", *others]))


def approve(context: Context) -> None:
    """Answer a request for approval; a flow run that waits for the answer goes on by itself."""
    from oncoshift.errors import RegistryError
    from oncoshift.registry.answers import Answer
    from oncoshift.registry.tracking import Tracker
    from oncoshift.retraining.approval import answer_request
    from oncoshift.user import find_user_name

    given, name = context.arguments, _choose_model_name(context)
    answer = Answer(not given.refuse, find_user_name(), _read_reason(context))
    tracker = Tracker(open_registry(context).tracking_uri, context.settings.tracking.experiment)
    approval = answer_request(tracker, name, given.version, answer)
    if (approval.state == "approved") != answer.approve:
        raise RegistryError(
            f"{name} version {given.version}: {approval.words}; `oncoshift promote --force` would overrule that"
        )
    print(f"{name}: version {given.version} was {approval.words}")


def rollback(context: Context) -> None:
    """Go back to the previous champion."""
    from oncoshift.registry.promotion import rollback as run
    from oncoshift.user import find_user_name

    name = _choose_model_name(context)
    version = run(open_registry(context), name, _read_reason(context), find_user_name())
    print(f"{name}: version {version} is champion again")


def audit(context: Context) -> None:
    """Print the audit log of a model as JSON lines, after checking that no line was changed."""
    from oncoshift.registry.audit import read_lines

    for line in read_lines(open_registry(context), _choose_model_name(context)):
        print(line)


def add_audit(parser: argparse.ArgumentParser) -> None:
    """Add the options of `audit`."""
    parser.add_argument("model", nargs="?", help="a registered model; default: oncoshift-<target>")


def relocate(context: Context) -> None:
    """Make the database of a project that was copied or moved name the artifacts beside it."""
    from oncoshift.errors import RegistryError
    from oncoshift.registry.embedded import check_whole, find_database
    from oncoshift.registry.relocation import relocate as run
    from oncoshift.registry.store import hold_store
    from oncoshift.secrets import remove_credentials

    database = find_database(context.tracking_uri)
    if database is None:
        raise RegistryError(f"{remove_credentials(context.tracking_uri)}: is a server; only an embedded store moves")
    if not database.is_file():
        raise RegistryError(f"{database}: is not there")
    check_whole(database)
    with hold_store(context.tracking_uri):
        done = run(database)
    if done is None:
        print(f"{database}: names no other project's artifacts; nothing was changed")
        return
    former = ", ".join(map(str, done.former))
    print(f"{database}: {done.places} entries now name {done.folder} instead of {former}; backup: {done.backup}")


def _read_reason(context: Context) -> str:
    """Read the reason as one line without control characters.

    Raises:
        RegistryError: it is blank.
    """
    from oncoshift.errors import RegistryError

    shown = "".join(letter if letter.isprintable() else " " for letter in context.arguments.reason)
    if not (reason := " ".join(shown.split())):
        raise RegistryError("--reason is blank; give a reason for the history")
    return reason


def _choose_model_name(context: Context) -> str:
    return context.arguments.model or context.settings.registered_model


def open_registry(context: Context) -> MlflowClient:
    """Open the registry that the settings name.

    Raises:
        RegistryError: there is no store, or it cannot be opened.
    """
    from oncoshift.errors import RegistryError
    from oncoshift.registry.store import has_store, open_client
    from oncoshift.secrets import remove_credentials

    uri = context.tracking_uri
    if not has_store(uri):
        raise RegistryError(
            f"{remove_credentials(uri)}: there is no store, so there are no registered models; `oncoshift retrain` "
            "registers the first"
        )
    return open_client(uri)
