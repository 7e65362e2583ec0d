"""On a real MLflow server with users: readers read, trainers register, promoters promote."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from faults.servers import MlflowServer

from oncoshift.cli import main
from oncoshift.errors import RegistryError
from oncoshift.registry.changes import INTENT_TAG
from oncoshift.registry.history import LAST_TAG, list_events, read_aliases
from oncoshift.registry.promotion import promote, rollback, set_challenger
from oncoshift.registry.store import open_client
from oncoshift.registry.tracking import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    As = Callable[[str], None]

pytestmark = pytest.mark.slow  # the server checks a password for a fraction of a second at each request
pytest.importorskip("flask_wtf", reason="MLflow's basic-auth: pip install flask-wtf")
MODEL = "oncoshift-kidney"
CONFIGURATION = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///users.db
admin_username = admin
authorization_function = oncoshift.registry.roles:authenticate
auth_cache_ttl_seconds = 60
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("auth")
    (folder / "basic_auth.ini").write_text(CONFIGURATION)
    environ = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": "of the administrator",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "k" * 32,
    }
    with (
        MlflowServer(folder / "server", ["--app-name", "basic-auth"], environ) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("oncoshift.registry.client._PROBE_SECONDS", 180)  # on a busy machine it checks passwords slowly
        search = "/api/2.0/mlflow/experiments/search"  # the first one makes tables, longer than the probe of a client
        assert request(running.uri, "admin", "of the administrator", "POST", search, {"max_results": 1}) == 200
        yield running.uri


@pytest.fixture(scope="module")
def passwords(server: str) -> dict[str, str]:
    """Passwords of a user of each role, made by the command."""
    made = {"admin": "of the administrator"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server)
        patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", made["admin"])
        for role in ("reader", "trainer", "promoter"):
            with redirect_stdout(StringIO()) as said:
                assert main(["user", role, "--role", role]) == 0
            made[role] = said.getvalue().rpartition("MLFLOW_TRACKING_PASSWORD=")[2].strip()
    assert len(set(made.values())) == 4
    return made


@pytest.fixture
def act_as(passwords: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> As:
    def act(user: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", passwords[user])

    return act


@pytest.fixture
def registered(server: str, act_as: As) -> None:
    """Versions 1 and 2, which a trainer has registered."""
    act_as("trainer")
    tracker = Tracker(server, "oncoshift")
    run = tracker.find_or_start_run("retraining", "retraining")
    if not tracker.client.search_registered_models(filter_string=f"name = '{MODEL}'"):
        tracker.client.create_registered_model(MODEL)
        model = tracker.client.create_logged_model(tracker.experiment_id, MODEL, run)
        for _ in range(2):
            tracker.client.create_model_version(MODEL, model.artifact_location, run, model_id=model.model_id)


@pytest.mark.usefixtures("registered")
def test_a_trainer_registers_and_challenges_and_does_not_promote(server: str, act_as: As) -> None:
    client = open_client(server)
    act_as("trainer")
    set_challenger(client, MODEL, "1", "trained", "flow")
    with pytest.raises(RegistryError, match="only a user with the role promoter"):
        promote(client, MODEL, "1", "better", "flow")
    assert read_aliases(client, MODEL) == {"challenger": "1"}
    assert INTENT_TAG not in client.get_registered_model(MODEL).tags, "nothing for a promoter to finish unasked"
    act_as("promoter")
    assert promote(client, MODEL, "1", "better", "anna")
    assert promote(client, MODEL, "2", "still better", "anna")
    assert read_aliases(client, MODEL) == {"champion": "2", "previous": "1"}
    act_as("trainer")
    with pytest.raises(RegistryError, match="promoter"):
        rollback(client, MODEL, "worse", "eve")
    assert [event.kind for event in list_events(client, MODEL)] == ["challenge", "promote", "promote"]


def request(
    server: str, user: str, password: str, method: str, path: str, body: dict[str, Any], kind: str = "application/json"
) -> int:
    headers = {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    if kind:
        headers["Content-Type"] = kind
    asked = urllib.request.Request(f"{server}{path}", json.dumps(body).encode(), headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=180) as answer:  # noqa: S310 - of this machine
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


MODELS = "/api/2.0/mlflow/registered-models"
CHANGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "champion": ("POST", f"{MODELS}/alias", {"name": MODEL, "alias": "champion", "version": "1"}),
    "by the page's address": (
        "POST",
        "/ajax-api/2.0/mlflow/registered-models/alias",
        {"name": MODEL, "alias": "champion", "version": "1"},
    ),
    "hidden in the query": (
        "POST",
        f"{MODELS}/alias?alias=challenger",
        {"name": MODEL, "alias": "champion", "version": "1"},
    ),
    "previous": ("POST", f"{MODELS}/alias", {"name": MODEL, "alias": "previous", "version": "1"}),
    "no champion": ("DELETE", f"{MODELS}/alias", {"name": MODEL, "alias": "champion"}),
    "an intent to finish": (
        "POST",
        f"{MODELS}/set-tag",
        {"name": MODEL, "key": INTENT_TAG, "value": json.dumps({"kind": "promote", "version": "1"})},
    ),
    "what the last change was": (
        "POST",
        f"{MODELS}/set-tag",
        {"name": MODEL, "key": LAST_TAG, "value": json.dumps({"kind": "promote", "version": "1"})},
    ),
    "an approval": (
        "POST",
        "/api/2.0/mlflow/model-versions/set-tag",
        {"name": MODEL, "version": "1", "key": "oncoshift.approval", "value": "approved"},
    ),
    "a version that is approved": (
        "POST",
        "/api/2.0/mlflow/model-versions/create",
        {"name": MODEL, "source": "x", "tags": [{"key": "oncoshift.approval", "value": "approved"}]},
    ),
    "another name": ("POST", f"{MODELS}/rename", {"name": MODEL, "new_name": "gone"}),
    "no model": ("DELETE", f"{MODELS}/delete", {"name": MODEL}),
    "no version": ("DELETE", "/api/2.0/mlflow/model-versions/delete", {"name": MODEL, "version": "1"}),
}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("change", CHANGES)
def test_no_request_of_a_trainer_moves_the_champion(server: str, passwords: dict[str, str], change: str) -> None:
    method, path, body = CHANGES[change]
    assert request(server, "trainer", passwords["trainer"], method, path, body) == 403
    if change == "champion":
        assert request(server, "trainer", passwords["trainer"], method, path, body, kind="text/plain") == 403


@pytest.mark.usefixtures("registered")
def test_a_reader_reads_and_a_stranger_does_not(server: str, act_as: As, monkeypatch: pytest.MonkeyPatch) -> None:
    act_as("reader")
    client = open_client(server)
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 2
    with pytest.raises(RegistryError, match="403"):  # at once, not as if another process had the lock
        set_challenger(client, MODEL, "1", "mine", "eve")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed")
    with pytest.raises(RegistryError, match="answers 401"):
        open_client(server)
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "reader"
