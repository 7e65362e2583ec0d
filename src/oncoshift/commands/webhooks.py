"""The command `webhook`: have an MLflow server tell other programs when a champion changes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from oncoshift.commands.registry import open_registry

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context

SECRET = "ONCOSHIFT_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
"""Environment variable with the secret that signs the reports."""


def add_webhook(parser: argparse.ArgumentParser) -> None:
    """Add the options of `webhook`."""
    parser.add_argument("action", choices=("add", "list", "remove"))
    parser.add_argument("url", nargs="?", help=f"address to report to; {SECRET} in the environment signs the reports")


def webhook(context: Context) -> None:
    """Add, list or remove an address that hears of each change of an alias.

    Raises:
        RegistryError: no address was given, or the server refuses it.
    """
    from oncoshift.errors import RegistryError
    from oncoshift.registry import webhooks
    from oncoshift.secrets import remove_credentials

    client, given = open_registry(context), context.arguments
    webhooks.check_is_server(client)
    if given.action == "list":
        for each in webhooks.list_webhooks(client):
            events = ", ".join(str(event) for event in each.events)
            print(f"{remove_credentials(each.url)}: {str(each.status).lower()}, {events}")
        return
    if given.url is None:
        raise RegistryError(f"webhook {given.action}: name the address")
    if given.action == "remove":
        webhooks.remove_webhook(client, given.url)
        print(f"{remove_credentials(given.url)}: hears of no change any more")
        return
    secret = os.environ.get(SECRET)
    webhooks.add_webhook(client, given.url, secret)
    signed = "signed" if secret else f"not signed, as {SECRET} is not set"
    print(f"{remove_credentials(given.url)}: hears of each change of an alias; reports are {signed}")
