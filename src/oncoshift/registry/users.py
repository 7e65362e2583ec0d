"""Users of an MLflow server with basic-auth, each with a password and a role."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, cast

from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from oncoshift.errors import RegistryError
from oncoshift.registry.client import check_server, shorten_error

if TYPE_CHECKING:
    from mlflow.server.auth.client import AuthServiceClient
    from mlflow.server.auth.entities import Role

READER, TRAINER, PROMOTER = "reader", "trainer", "promoter"

PERMISSIONS = {
    READER: {"experiment": "READ", "registered_model": "READ"},
    # MLflow asks for MANAGE to remove a version's tag, as the gate does when it judges again.
    TRAINER: {"experiment": "EDIT", "registered_model": "MANAGE"},
    PROMOTER: {"experiment": "EDIT", "registered_model": "MANAGE"},
}
"""By role, MLflow's permission on all experiments and on all registered models."""

_PASSWORD_BYTES = 24


def add_user(uri: str, name: str, role: str, password: str | None = None) -> str:
    """Create a user with a role, or give a user that exists this role alone and a new password.

    Args:
        uri: an MLflow server with basic-auth; the caller's credentials, in MLflow's variables, are
            an administrator's.
        name: name of the user.
        role: one of `PERMISSIONS`.
        password: of at least twelve characters; None: one is generated.

    Returns:
        The password.

    Raises:
        RegistryError: the server has no users, or refuses.
        UnavailableError: it does not answer.
    """
    check_server(uri)
    client = cast("AuthServiceClient", get_app_client("basic-auth", tracking_uri=uri))
    password = password or secrets.token_urlsafe(_PASSWORD_BYTES)
    try:
        _set_password(client, name, password)
        wanted = _ensure_role(client, role)
        held = {each.id: each for each in client.list_user_roles(name)}
        for other in held.values():
            if other.name in PERMISSIONS and other.id != wanted.id:
                client.unassign_role(name, other.id)
        if wanted.id not in held:
            client.assign_role(name, wanted.id)
    except MlflowException as error:
        raise RegistryError(
            f"{uri}: {shorten_error(error)}; users are made by an administrator, on a server that was started with "
            "--app-name basic-auth"
        ) from error
    return password


def _set_password(client: AuthServiceClient, name: str, password: str) -> None:
    try:
        client.create_user(name, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_user_password(name, password)


def _ensure_role(client: AuthServiceClient, name: str) -> Role:
    """Find a role, or make it, and add what permissions it lacks."""
    present = {role.name: role for role in client.list_roles(DEFAULT_WORKSPACE_NAME)}
    role = present.get(name) or client.create_role(DEFAULT_WORKSPACE_NAME, name, f"oncoshift: {name}")
    granted = {each.resource_type for each in role.permissions}
    for resource, permission in PERMISSIONS[name].items():
        if resource not in granted:
            client.add_role_permission(role.id, resource, "*", permission)
    return role
