"""Races of promotions, rollbacks and SIGKILL on one registry, and what must hold after each.

Processes are forked from one that has imported MLflow and opened no store, as imports take longer
than a race.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sqlite3
import sys
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from oncoshift.errors import RegistryError
from oncoshift.registry.audit import read_lines
from oncoshift.registry.changes import INTENT_TAG
from oncoshift.registry.history import find_champion, list_events, read_aliases
from oncoshift.registry.lease import hold_lease
from oncoshift.registry.promotion import promote, recover, rollback, set_challenger
from oncoshift.registry.store import open_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from mlflow import MlflowClient

VERSIONS = 4
PROCESSES = 3
CHANGES = 2
"""Changes that each process tries."""

LATEST_KILL = float(os.environ.get("ONCOSHIFT_TEST_LATEST_KILL", "1.0"))
"""Seconds after its start by which a process is killed; on a busy machine changes take longer."""


@event.listens_for(Engine, "connect")
def write_without_waiting_for_the_disk(connection: Any, _: object) -> None:
    """Processes die in these tests, and the machine does not: an fsync would only cost time."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


def main() -> None:
    """Run races; arguments: URI, first seed, number of seeds, `lease` to use it on SQLite too."""
    uri, first, count, *options = sys.argv[1:]
    referee = Worker(uri)
    referee.start(_use_lease if "lease" in options else _do_nothing)
    referee.wait()  # two processes at once cannot make MLflow's tables
    workers = [Worker(uri) for _ in range(PROCESSES)]
    for seed in range(int(first), int(first) + int(count)):
        race(referee, workers, f"race-{seed}", seed)
        print(f"race {seed}: whole", flush=True)
    for worker in (referee, *workers):
        worker.kill()


def race(referee: Worker, workers: list[Worker], name: str, seed: int) -> None:
    """Let processes change the champion of a new model, kill one, and check what is left."""
    draw = random.Random(seed)
    referee.start(_make_model, name)
    referee.wait()
    for number, worker in enumerate(workers):
        worker.start(_work, name, seed, number)
    time.sleep(draw.uniform(0.0, LATEST_KILL))
    victim = draw.choice(workers)
    victim.kill()
    for worker in workers:
        if worker is not victim:
            worker.wait()
    workers[workers.index(victim)] = Worker(victim.uri)
    referee.start(_check_whole, name)
    referee.wait()


class Worker:
    """A process that is forked from this one and does tasks on a store, one at a time.

    Args:
        uri: the store.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._pipe, pipe = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_serve, args=(uri, pipe), daemon=True)
        self._process.start()
        pipe.close()

    def start(self, task: Callable[..., None], *arguments: Any) -> None:
        """Begin a task, called with a client of the store and the arguments."""
        self._pipe.send((task, arguments))

    def wait(self) -> None:
        """Wait until the task is done."""
        answer = self._pipe.recv()
        assert answer == "done", answer

    def kill(self) -> None:
        """End it by SIGKILL, whatever it is doing."""
        self._process.kill()
        self._process.join()


def _serve(uri: str, pipe: Connection) -> None:
    client = open_client(uri)
    while True:
        task, arguments = pipe.recv()
        try:
            task(client, *arguments)
            pipe.send("done")
        except Exception:
            pipe.send(traceback.format_exc())


def _use_lease(client: MlflowClient) -> None:
    with hold_lease(client):
        pass


def _do_nothing(_: MlflowClient) -> None:
    pass


def _make_model(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    for _ in range(VERSIONS):
        client.create_model_version(name, "file:///nowhere", run_id="0" * 32)
    promote(client, name, "1", "first", "setup")


def _work(client: MlflowClient, name: str, seed: int, worker: int) -> None:
    draw = random.Random(f"{seed} {worker}")
    by = f"worker {worker}"
    for _ in range(CHANGES):
        version = str(draw.randint(1, VERSIONS))
        kind = draw.choice(("promote", "expected", "rollback", "challenge"))
        judged = find_champion(client, name)
        assert judged is not None, "there was a moment without a champion"
        with suppress(RegistryError):  # another process was first, or withdrew the version
            if kind == "rollback":
                rollback(client, name, "worse", by)
            elif kind == "challenge":
                set_challenger(client, name, version, "trained", by)
            elif kind == "expected":
                promote(client, name, version, "better", by, force=True, expected=judged)
            else:
                promote(client, name, version, "better", by, force=True)


def _check_whole(client: MlflowClient, name: str) -> None:
    recover(client, name)
    events = list_events(client, name)
    changes = [each for each in events if each.changes_champion]
    assert [each.replaced for each in changes[1:]] == [each.version for each in changes[:-1]], "a gap"
    assert not [each for each in changes if each.kind in ("manual", "removed")], "a change outside oncoshift"
    assert len({each.at for each in events}) == len(events), "two events of one time"
    assert read_aliases(client, name)["champion"] == changes[-1].version, "the champion is not the last one"
    assert INTENT_TAG not in client.get_registered_model(name).tags, "a change is left"
    audited = [json.loads(line)["entry"] for line in read_lines(client, name)]
    keys = [(entry["at"], entry["kind"], entry["version"]) for entry in audited]
    assert len(set(keys)) == len(keys), "a line twice"
    assert sorted(keys) == [(each.at, each.kind, each.version) for each in events], "log and history differ"


if __name__ == "__main__":
    main()
