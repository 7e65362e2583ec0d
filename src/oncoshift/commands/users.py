"""The command `user`: users of an MLflow server with basic-auth."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from oncoshift.errors import SettingsError

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context

_ROLES = ("reader", "trainer", "promoter")


def add_user(parser: argparse.ArgumentParser) -> None:
    """Add the options of `user`."""
    parser.add_argument("name", help="name of the user; of one that exists, password and role are replaced")
    parser.add_argument("--role", choices=_ROLES, required=True, help="only a promoter may move the champion")
    parser.add_argument(
        "--password-variable",
        metavar="NAME",
        help="environment variable with the password; default: generate one",
    )


def user(context: Context) -> None:
    """Create a user of the MLflow server, and print the password if it was generated.

    Raises:
        SettingsError: the named variable is not set.
    """
    from oncoshift.registry.users import add_user as add

    given = context.arguments
    variable: str | None = given.password_variable
    chosen = None if variable is None else os.environ.get(variable, "")
    if chosen == "":
        raise SettingsError(f"--password-variable {variable}: this environment variable is not set, or empty")
    password = add(context.tracking_uri, given.name, given.role, chosen)
    if chosen is None:
        print(f"MLFLOW_TRACKING_USERNAME={given.name}\nMLFLOW_TRACKING_PASSWORD={password}")
    else:
        print(f"{given.name}: {given.role}, with the password of {variable}")
