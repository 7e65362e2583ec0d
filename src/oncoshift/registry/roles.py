"""Roles on an MLflow server with basic-auth: only a promoter moves the champion.

MLflow's own permissions end at the registered model: who may add a version may also move its
aliases. So the server's `authorization_function` is `authenticate` below. It runs inside the
server, before MLflow's own checks, and refuses the few requests by which a champion is chosen or
lost to whoever does not have the role `promoter`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flask import Response, request
from mlflow.server import auth
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from oncoshift.registry.approval import APPROVAL_TAG, APPROVED
from oncoshift.registry.changes import INTENT_TAG
from oncoshift.registry.history import CHALLENGER, LAST_TAG
from oncoshift.registry.lease import LOCK
from oncoshift.registry.users import PROMOTER

if TYPE_CHECKING:
    from werkzeug.datastructures import Authorization

_MODELS, _VERSIONS = "/mlflow/registered-models/", "/mlflow/model-versions/"


def authenticate() -> Authorization | Response:
    """Authenticate a request by basic-auth; refuse changes of the champion to all but promoters.

    Returns:
        The user, for MLflow's own permissions; or the refusal, 401 or 403.
    """
    found: Authorization | Response = auth.authenticate_request_basic_auth()
    if isinstance(found, Response) or not _chooses_champion() or _may_promote(str(found.username)):
        return found
    words = f"only a user with the role {PROMOTER} may change which version is champion\n"
    return Response(words, 403, mimetype="text/plain")


def _may_promote(name: str) -> bool:
    user = auth.store.get_user(name)
    roles = auth.store.list_user_roles_for_workspace(user.id, DEFAULT_WORKSPACE_NAME)
    return user.is_admin or PROMOTER in {role.name for role in roles}


def _chooses_champion() -> bool:
    """Tell whether the request moves, plans to move or removes a champion; in doubt, it does."""
    if request.method == "GET":
        return False
    path = request.path
    if path.endswith(f"{_MODELS}alias"):
        return _read("alias") != {CHALLENGER}
    if path.endswith(f"{_MODELS}set-tag"):
        keys = _read("key")
        return not all(isinstance(key, str) for key in keys) or (
            bool(keys & {INTENT_TAG, LAST_TAG}) and not _plans_challenger()
        )
    if path.endswith((f"{_MODELS}delete", f"{_MODELS}rename")):
        return not all(isinstance(name, str) and name.startswith(f"{LOCK} ") for name in _read("name"))
    if path.endswith((f"{_VERSIONS}set-tag", f"{_VERSIONS}create")):
        return _approves()
    return path.endswith(f"{_VERSIONS}delete")


def _approves() -> bool:
    """Tell whether the request marks a version as approved, which the next answer carries out."""
    body = request.get_json(force=True, silent=True) if request.get_data() else {}
    places = [request.args, body, *((body.get("tags") or ()) if isinstance(body, dict) else ())]
    keys, values = (
        {str(place[field]) for place in places if isinstance(place, dict) and field in place}
        for field in ("key", "value")
    )
    return APPROVAL_TAG in keys and APPROVED in values


def _read(field: str) -> set[Any]:
    """Read a field wherever MLflow may take it from; None: it is absent, or the body no object."""
    body = request.get_json(force=True, silent=True) if request.get_data() else {}
    places = (request.args, body if isinstance(body, dict) else {field: None})
    return {place[field] for place in places if field in place} or {None}


def _plans_challenger() -> bool:
    """Tell whether the intent that the request records is to make a version the challenger."""
    try:
        return all(json.loads(value)["kind"] == "challenge" for value in _read("value"))
    except (ValueError, TypeError, LookupError):
        return False
