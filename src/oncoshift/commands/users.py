"""The command `user`: users of an MLflow server with basic-auth."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context

_ROLES = ("reader", "trainer", "promoter")


def add_user(parser: argparse.ArgumentParser) -> None:
    """Add the options of `user`."""
    parser.add_argument("name", help="name of the user; of one that exists, password and role are replaced")
    parser.add_argument("--role", choices=_ROLES, required=True, help="only a promoter may move the champion")


def user(context: Context) -> None:
    """Create a user of the MLflow server, and print the generated password."""
    from oncoshift.registry.users import add_user as add

    given = context.arguments
    password = add(context.tracking_uri, given.name, given.role)
    print(f"MLFLOW_TRACKING_USERNAME={given.name}\nMLFLOW_TRACKING_PASSWORD={password}")
