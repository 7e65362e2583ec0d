"""A real MLflow server: the lease over its API, its webhooks, and versions copied to it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from support.lossy import losing_answers
from support.ports import find_free_port

from oncoshift.errors import RegistryError
from oncoshift.registry.history import list_events, read_aliases
from oncoshift.registry.lease import LOCK
from oncoshift.registry.packaging import log_and_register
from oncoshift.registry.promotion import promote
from oncoshift.registry.store import open_client
from oncoshift.registry.tracking import Tracker
from oncoshift.registry.transfer import copy_version
from oncoshift.registry.webhooks import add_webhook, list_webhooks, remove_webhook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow import MlflowClient

    from oncoshift.registry.folder import Package

SECRET = "a secret"  # noqa: S105 - of a test


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server with a database and artifacts of its own."""
    folder = tmp_path_factory.mktemp("server")
    port = find_free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    environment = os.environ | {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(b"k" * 32).decode(),
        "MLFLOW_WEBHOOK_CACHE_TTL": "0",
    }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - of this machine
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail("the server does not answer")


@pytest.fixture
def client(server: str) -> MlflowClient:
    return open_client(server)


@pytest.fixture
def name(client: MlflowClient, unique: Callable[[str], str]) -> str:
    name = unique("oncoshift-served")
    client.create_registered_model(name)
    experiment = client.create_experiment(name)
    run = client.create_run(experiment).info.run_id
    model = client.create_logged_model(experiment, name, run)
    for _ in range(2):
        client.create_model_version(name, model.artifact_location, run, model_id=model.model_id)
    return name


@pytest.fixture
def received() -> Iterator[tuple[str, Queue[tuple[Any, bytes]]]]:
    """An address on this machine, and the requests that it receives: headers and body."""
    requests: Queue[tuple[Any, bytes]] = Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.put((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{receiver.server_port}/champions", requests
    receiver.shutdown()


def test_a_promotion_through_a_server_takes_the_lease(client: MlflowClient, name: str) -> None:
    promote(client, name, "1", "good", "anna")
    promote(client, name, "2", "better", "ben", expected="1")
    assert read_aliases(client, name) == {"champion": "2", "previous": "1"}
    assert [event.replaced for event in list_events(client, name)] == [None, "1"]
    (lock,) = client.search_registered_models(filter_string=f"name LIKE '{LOCK}%'")
    assert lock.name.endswith("free")


def test_a_webhook_reports_a_new_champion_with_a_signature(
    client: MlflowClient, name: str, received: tuple[str, Queue[tuple[Any, bytes]]]
) -> None:
    url, requests = received
    add_webhook(client, url, SECRET)
    add_webhook(client, url, SECRET)
    assert [webhook.url for webhook in list_webhooks(client)] == [url]
    promote(client, name, "1", "good", "anna")
    headers, body = requests.get(timeout=60)
    report = json.loads(body)
    assert report["entity"] == "model_version_alias"
    assert report["data"] == {"name": name, "alias": "champion", "version": "1"}
    signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.{body.decode()}"
    digest = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    assert headers["X-MLflow-Signature"] == f"v1,{base64.b64encode(digest).decode()}"
    remove_webhook(client, url)
    assert list_webhooks(client) == []
    with pytest.raises(RegistryError, match="no webhook reports to it"):
        remove_webhook(client, url)


def test_only_a_server_sends_webhooks(tmp_path: Path) -> None:
    embedded = open_client(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(RegistryError, match="only an MLflow server sends webhooks"):
        add_webhook(embedded, "https://example.org", None)


def test_a_version_is_copied_with_its_evidence_and_both_histories_say_so(
    server: str, tracker: Tracker, make_package: Callable[[str], Package], unique: Callable[[str], str]
) -> None:
    name, production = unique("oncoshift-copied"), Tracker(server, "production")
    run = tracker.find_or_start_run(name, "retraining")
    tracker.log_metrics(run, [(0, 0, {"target/balanced_accuracy": 0.9})])
    tracker.log_text(run, "evidence", "report.html")
    log_and_register(tracker, run, name, make_package(name), {"oncoshift.gate.auroc": "passed: 0.9"})
    promote(tracker.client, name, "1", "gate", "flow")
    for _ in range(2):
        assert copy_version(tracker.client, name, "1", production, "anna", "validated") == "1"
    copy = production.client.get_model_version(name, "1")
    assert copy.tags["oncoshift.gate.auroc"] == "passed: 0.9"
    assert copy.description.startswith("# card")
    evidence = production.client.get_run(str(copy.run_id))
    assert evidence.data.metrics["target/balanced_accuracy"] == 0.9
    files = production.client.list_artifacts(str(copy.run_id), "retraining")
    assert [each.path for each in files] == ["retraining/report.html"]
    (there,) = list_events(production.client, name)
    assert (there.kind, there.by) == ("copied", "anna")
    assert there.reason.endswith("version 1: validated")
    assert [event.kind for event in list_events(tracker.client, name)] == ["promote", "copied"]


def test_a_damaged_version_is_not_copied(
    server: str, tracker: Tracker, make_package: Callable[[str], Package], unique: Callable[[str], str]
) -> None:
    name, production = unique("oncoshift-damaged"), Tracker(server, "production")
    run = tracker.find_or_start_run(name, "retraining")
    version = log_and_register(tracker, run, name, make_package(name))
    Path(urlsplit(str(version.source)).path, "artifacts", "card.md").write_text("other")
    with pytest.raises(RegistryError, match="damaged"):
        copy_version(tracker.client, name, "1", production, "anna", "validated")
    assert production.client.search_model_versions(f"name = '{name}'") == []


def test_nothing_is_made_twice_though_answers_are_lost(
    server: str, make_package: Callable[[str], Package], unique: Callable[[str], str]
) -> None:
    name = unique("oncoshift-lossy")
    with losing_answers(server, share=0.3) as lossy:
        tracker = Tracker(lossy.uri, name)
        run = tracker.find_or_start_run(name, "retraining")
        tracker.log_metrics(run, [(step, step, {"loss": 1.0}) for step in range(3)])
        version = log_and_register(tracker, run, name, make_package(name))
        promote(tracker.client, name, str(version.version), "better", "flow")
        tracker.finish(run)
        assert lossy.lost > 5
    client = open_client(server)
    experiment = client.get_experiment_by_name(name)
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run, "loss")] == [0, 1, 2]
    assert [model.status for model in client.search_logged_models([experiment.experiment_id])] == ["READY"]
    assert len(client.search_model_versions(f"name = '{name}'")) == 1
    assert [event.kind for event in list_events(client, name)] == ["promote"]
