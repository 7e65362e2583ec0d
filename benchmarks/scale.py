"""What 10,000 runs and 1,000 versions cost, and what a second worker of a study gains.

A small project is retrained. Its embedded store is copied twice, and in one copy its runs and its
version are multiplied: other ids and keys, the same tags, parameters and metrics, and as many lines
of the audit log for each version. Then the project works on both stores, in turns, and the table
gives medians. CPU seconds are more reliable than wall-clock time where a machine does other work.
The aim is one second more for each:

- the commands that list versions and runs;
- a retraining with nothing to do;
- a retraining whose gate alone has changed, so that all but the gate's decision is found, and its
  step `gate`, from the start of its run to the end;
- what the gate writes to the registry: a new challenger, a decision of 14 reasons, a promotion;
- logging an epoch of 20 figures. The loop waits for it, so it counts against the epoch's own time.

Last, a study of the demo's tiles is run with one and with two workers of a thread each, in turns,
each time in a fresh copy of the same project. Trials an hour are those between the start of the
first trial and the end of the last.

Run: python benchmarks/scale.py        (ten minutes on two idle cores)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from mlflow import MlflowClient
from orchestration import REPOSITORY, SMALL, Cost, small_project

if TYPE_CHECKING:
    from mlflow.entities import Run

RUNS, VERSIONS = 10_000, 1_000
EPOCHS_LOGGED = 50
TRIALS = 6
DEMO: dict[str, dict[str, Any]] = {
    "phantom": {"organs": ["lung", "colon", "kidney"]},
    "normalize": {"variants": ["none"]},
    "train": {"epochs": 2, "steps_per_epoch": 5},
    "tune": {"trials": TRIALS, "epochs": 2},
}
"""What differs from the demo's settings in the project whose study is run."""

LOG = f"""
import json, os, sys, time
from oncoshift.registry.tracking import Tracker
tracker = Tracker(os.environ["MLFLOW_TRACKING_URI"], "oncoshift")
run = tracker.find_or_start_run(f"benchmark-{{time.time_ns()}}", "benchmark")
figures = {{f"train/figure_{{number}}": 0.5 for number in range(20)}}
waited = []
for epoch in range({EPOCHS_LOGGED}):
    began = time.perf_counter()
    tracker.log_metrics(run, [(epoch, 1000 * epoch, figures)])
    waited.append(time.perf_counter() - began)
tracker.finish(run)
print(json.dumps(sorted(waited)))
"""

DECIDE = """
import json, os, time
from oncoshift.registry.decision import Decision
from oncoshift.registry.gate_record import record_decision
from oncoshift.registry.history import find_champion
from oncoshift.registry.policy import Reason
from oncoshift.registry.promotion import promote, set_challenger
from oncoshift.registry.store import open_client
from oncoshift.registry.times import get_time
client, name, took = open_client(os.environ["MLFLOW_TRACKING_URI"]), "oncoshift-kidney", []
for number in range(3):
    made = client.create_model_version(name, "file:///nowhere", run_id="0" * 32).version
    reasons = tuple(Reason(f"condition {each}", True, 0.5, 0.4, f"round {number}") for each in range(14))
    began = time.process_time()
    set_challenger(client, name, made, "benchmark", "benchmark")
    champion = find_champion(client, name)
    record_decision(client, name, made, Decision(True, reasons, champion=champion, at=get_time()))
    promote(client, name, made, "benchmark", "benchmark", expected=champion)
    took.append(time.process_time() - began)
print(json.dumps(took[1:]))
"""
"""A program that makes versions and promotes them; it prints CPU seconds of each but the first."""

NOTHING, GATE_ALONE = "a retraining, nothing to do", "a retraining, gate alone"
COMMANDS = {
    "oncoshift models": ["-m", "oncoshift.cli", "models"],
    "oncoshift compare": ["-m", "oncoshift.cli", "compare"],
    NOTHING: ["-m", "oncoshift.cli", "retrain"],
    GATE_ALONE: ["-m", "oncoshift.cli", "retrain"],
}
"""In this order: the last leaves another retraining, which the next round finds unchanged."""

MULTIPLY = """
INSERT INTO runs SELECT copied(run_uuid), name, source_type, source_name, entry_point_name, user_id, status, start_time,
    end_time, source_version, lifecycle_stage, artifact_uri, experiment_id, deleted_time
    FROM runs WHERE run_uuid IN (SELECT id FROM originals);
INSERT INTO tags SELECT key, CASE key WHEN 'oncoshift.key' THEN copied(value) WHEN 'mlflow.parentRunId' THEN
    copied(value) ELSE value END, copied(run_uuid) FROM tags WHERE run_uuid IN (SELECT id FROM originals);
INSERT INTO params SELECT key, value, copied(run_uuid) FROM params WHERE run_uuid IN (SELECT id FROM originals);
INSERT INTO latest_metrics SELECT key, value, timestamp, step, is_nan, copied(run_uuid)
    FROM latest_metrics WHERE run_uuid IN (SELECT id FROM originals);
"""
"""SQL that copies all runs of a store; `copied` makes the id of a copy from the original's."""

MULTIPLY_VERSIONS = """
INSERT INTO model_versions SELECT name, number(), creation_time, last_updated_time, description, user_id,
    current_stage, source, run_id, status, status_message, run_link, storage_location, workspace
    FROM model_versions WHERE version = 1;
INSERT INTO model_version_tags SELECT key, CASE key WHEN 'oncoshift.key' THEN value || '/' || number() ELSE value END,
    name, number(), workspace FROM model_version_tags WHERE version = 1;
"""
"""SQL that registers version 1 of each model once more; `number` is the new version's."""


AUDITED = """
SELECT name, run_uuid FROM registered_models JOIN tags ON tags.key = 'oncoshift.key' AND tags.value = 'audit-' || name
"""
"""SQL that lists models with the run of their audit log."""


class Store(NamedTuple):
    """A store, and the project that works on it.

    Attributes:
        project: folder of the project.
        folder: of the store.
    """

    project: Path
    folder: Path

    @property
    def uri(self) -> str:
        """Its tracking URI."""
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a command on it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        paths = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
        own = {"MLFLOW_TRACKING_URI": self.uri, "ONCOSHIFT_PROJECT": str(self.project)}
        return kept | own | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}

    def call(self, *command: str) -> str:
        """Run a command of Python on it; return its output."""
        done = subprocess.run(
            [sys.executable, *command], cwd=self.project, env=self.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
            done.check_returncode()
        return done.stdout

    def run(self, *command: str) -> Cost:
        """Run a command of Python on it; return its cost."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        self.call(*command)
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        return Cost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def search_runs(self, step: str) -> list[Run]:
        """Search the latest runs of a step, the newest first."""
        client = MlflowClient(self.uri, self.uri)
        experiment = client.get_experiment_by_name("oncoshift")
        assert experiment is not None
        chosen, newest = f"tags.`oncoshift.step` = '{step}'", ["start_time DESC"]
        return list(client.search_runs([experiment.experiment_id], chosen, order_by=newest, max_results=100))


def copy_store(store: Path, project: Path, folder: Path) -> Store:
    """Copy a store with its artifacts."""
    shutil.copytree(store.parent / "artifacts", folder / "artifacts")
    source = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    with closing(source), closing(sqlite3.connect(folder / "mlflow.db")) as copy:
        source.backup(copy)
    made = Store(project, folder)
    made.call("-m", "oncoshift.cli", "relocate")
    return made


def multiply(database: Path, runs: int, versions: int) -> None:
    """Multiply runs and versions in a database until there are as many as asked for."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")  # each statement is a transaction of its own
        connection.execute("CREATE TEMP TABLE originals AS SELECT run_uuid AS id FROM runs")
        (first,) = connection.execute("SELECT count(*) FROM originals").fetchone()
        for copy in range(1, -(-runs // first)):
            connection.create_function("copied", 1, partial(copy_id, copy))
            connection.executescript(MULTIPLY)
        for version in range(2, versions + 1):
            connection.create_function("number", 0, partial(int, version))
            connection.executescript(MULTIPLY_VERSIONS)
        for model, run in connection.execute(AUDITED).fetchall():
            lengthen_log(connection, model, run, versions)


def lengthen_log(connection: sqlite3.Connection, model: str, run: str, versions: int) -> None:
    """Repeat the lines of a model's audit log for further versions."""
    of_run = "SELECT value FROM tags WHERE run_uuid = ? AND key LIKE 'line.%' ORDER BY key"
    lines = [text for (text,) in connection.execute(of_run, (run,))]
    first = [json.loads(line) for line in lines]
    for version in range(2, versions + 1):
        for entry in first:
            previous = hashlib.sha256(lines[-1].encode()).hexdigest()
            changed = {**entry, "entry": {**entry["entry"], "version": str(version)}, "previous": previous}
            lines.append(json.dumps(changed, ensure_ascii=False))
    rows = [(f"line.{number:08d}", line, run) for number, line in enumerate(lines)]
    connection.executemany("INSERT OR IGNORE INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", rows)
    head = f"{len(lines)} {hashlib.sha256(lines[-1].encode()).hexdigest()}"
    connection.execute(
        "UPDATE registered_model_tags SET value = ? WHERE key = 'oncoshift.audit' AND name = ?", (head, model)
    )


def copy_id(copy: int, original: str) -> str:
    """Make the id of a run's copy."""
    return f"{copy:05x}{original[5:]}"


def change(project: Path, **sections: dict[str, Any]) -> None:
    """Change settings in a project's params.yaml."""
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, values in sections.items():
        params[section] = {**params[section], **values}
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def measure_stores(scratch: Path, rounds: int) -> dict[str, float]:
    """Measure what a large store costs, print the table, and return what is more by name."""
    project = scratch / "project"
    project.mkdir()
    small_project(project)
    first = Store(project, project / "mlruns")
    first.call("-m", "oncoshift.cli", "retrain")
    small, large = (copy_store(first.folder / "mlflow.db", project, scratch / name) for name in ("small", "large"))
    multiply(large.folder / "mlflow.db", RUNS, VERSIONS)
    costs: dict[str, tuple[list[Cost], list[Cost]]] = {name: ([], []) for name in COMMANDS}
    gates: tuple[list[float], list[float]] = ([], [])
    logged: tuple[list[float], list[float]] = ([], [])
    decided: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for name, command in COMMANDS.items():
            if name == GATE_ALONE:
                change(project, gate={"max_latency_ms": 1e6 + number})
            for column, store in enumerate((small, large)):
                costs[name][column].append(store.run(*command))
        for column, store in enumerate((small, large)):
            gate = store.search_runs("gate")[0].info
            gates[column].append((gate.end_time - gate.start_time) / 1000)
            logged[column].extend(json.loads(store.call("-c", LOG)))
    figures: dict[str, float] = {}
    print(f"{'median of CPU seconds':28}{'one retraining':>16}{f'{RUNS:,} runs':>16}{'more':>8}{'more, wall':>12}")
    for name, (few, many) in costs.items():
        before, after = (median(cost.cpu for cost in each) for each in (few, many))
        waited = median(cost.seconds for cost in many) - median(cost.seconds for cost in few)
        print(f"{name:28}{before:16.2f}{after:16.2f}{after - before:8.2f}{waited:12.2f}")
        figures[f"{name}, more"] = round(after - before, 2)
    for column, store in enumerate((small, large)):  # last, as the champion has no files then
        decided[column].extend(json.loads(store.call("-c", DECIDE)))
    rows = (
        ("step gate, wall s", gates, 1),
        ("a promotion written, CPU s", decided, 1),
        ("an epoch logged, wall ms", logged, 1000),
    )
    for name, (few, many), scale in rows:
        before, after = (scale * median(each) for each in (few, many))
        print(f"{name:28}{before:16.2f}{after:16.2f}{'':8}{after - before:12.2f}")
        figures[f"{name}, more"] = round(after - before, 2)
    return figures


def measure_workers(scratch: Path, rounds: int) -> dict[str, float]:
    """Run the study with one and with two workers; print and return trials an hour."""
    base = scratch / "demo"
    base.mkdir()
    small_project(base)
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for section in SMALL:
        params[section] |= DEMO.get(section, {})
    params |= {"target": "kidney", "sources": ["lung", "colon"]}
    (base / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for command in ("phantom", "ingest", "split", "normalize"):
        Store(base, base / "mlruns").call("-m", "oncoshift.cli", command)
    found: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for workers, rates in found.items():
            copy = Path(shutil.copytree(base, scratch / f"workers-{workers}-{number}", symlinks=True))
            change(copy, train={"threads": 1})
            store = Store(copy, copy / "mlruns")
            store.call("-m", "oncoshift.cli", "tune", "--trials", str(TRIALS), "--workers", str(workers))
            trials = [run.info for run in store.search_runs("trial")]
            hours = (max(each.end_time for each in trials) - min(each.start_time for each in trials)) / 3_600_000
            rates.append(len(trials) / hours)
            print(f"trials an hour with {workers} workers: {rates[-1]:.0f}")
    return {f"trials an hour, workers {workers}": round(median(rates)) for workers, rates in found.items()}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oncoshift-scale-") as scratch:
        figures = measure_stores(Path(scratch).resolve(), given.rounds) | measure_workers(
            Path(scratch).resolve(), given.rounds
        )
    print(json.dumps({"benchmark": "scale", "figures": figures}))


if __name__ == "__main__":
    main()
