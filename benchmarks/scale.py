"""What a registry of 1,000 versions and 10,000 runs costs the commands that read it.

The embedded store of a project that has been retrained is copied twice, and in one copy its runs
and its version are multiplied: other ids and keys, the same tags, parameters and metrics.
The commands run on both, in turns, and the table gives medians. CPU seconds are more reliable than
wall-clock time where a machine does other work. The aim is one second more for each.

A retraining with nothing to do asks the store one question more than the others: which run has its
key. So the key of a run that is there, and of one that is not, are looked up within one process.

Run: python benchmarks/scale.py        (after `make demo`; two minutes on an idle core)
"""

from __future__ import annotations

import argparse
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
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
RUNS, VERSIONS = 10_000, 1_000

LOOK_UP = """
import os
from oncoshift.registry.tracking import Tracker
assert Tracker(os.environ["MLFLOW_TRACKING_URI"], "oncoshift").find_run("absent") is None
"""

COMMANDS = {
    "oncoshift models": ["-m", "oncoshift.cli", "models"],
    "oncoshift compare": ["-m", "oncoshift.cli", "compare"],
    "a run by its key": ["-c", LOOK_UP],
}

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
INSERT INTO model_version_tags SELECT key, value, name, number(), workspace
    FROM model_version_tags WHERE version = 1;
"""
"""SQL that registers version 1 of each model once more; `number` is the new version's."""


class Cost(NamedTuple):
    """A command's cost: wall-clock seconds, and CPU seconds of all its processes."""

    seconds: float
    cpu: float


def copy_store(store: Path, folder: Path) -> Path:
    """Copy a store's database, without artifacts, which none of the commands reads."""
    folder.mkdir()
    (folder / "artifacts").mkdir()
    source = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    with closing(source), closing(sqlite3.connect(folder / "mlflow.db")) as copy:
        source.backup(copy)
    command = [sys.executable, "-m", "oncoshift.cli", "relocate"]
    subprocess.run(command, cwd=REPOSITORY, env=build_environment(folder), check=True, stdout=subprocess.DEVNULL)
    return folder


def multiply(database: Path, runs: int, versions: int) -> None:
    """Multiply runs and versions in a database until there are as many as asked for."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TEMP TABLE originals AS SELECT run_uuid AS id FROM runs")
        (first,) = connection.execute("SELECT count(*) FROM originals").fetchone()
        for copy in range(1, -(-runs // first)):
            connection.create_function("copied", 1, partial(copy_id, copy))
            connection.executescript(MULTIPLY)
        for version in range(2, versions + 1):
            connection.create_function("number", 0, partial(int, version))
            connection.executescript(MULTIPLY_VERSIONS)


def copy_id(copy: int, original: str) -> str:
    """Make the id of a run's copy."""
    return f"{copy:05x}{original[5:]}"


def build_environment(folder: Path) -> dict[str, str]:
    """Build the environment of a command on a store."""
    return os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}


def run(command: list[str], folder: Path) -> Cost:
    """Run a command on a store."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=build_environment(folder),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=REPOSITORY / "mlruns" / "mlflow.db")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="oncoshift-scale-"))
    try:
        small, large = (copy_store(given.store, scratch / name) for name in ("small", "large"))
        multiply(large / "mlflow.db", RUNS, VERSIONS)
        costs: dict[str, tuple[list[Cost], list[Cost]]] = {name: ([], []) for name in COMMANDS}
        for _ in range(given.rounds):
            for name, command in COMMANDS.items():
                costs[name][0].append(run(command, small))
                costs[name][1].append(run(command, large))
    finally:
        shutil.rmtree(scratch)
    figures: dict[str, float] = {}
    print(f"{'median of CPU seconds':24}{'one retraining':>16}{f'{RUNS:,} runs':>16}{'more':>8}{'more, wall':>12}")
    for name, (few, many) in costs.items():
        before, after = (median(cost.cpu for cost in each) for each in (few, many))
        waited = median(cost.seconds for cost in many) - median(cost.seconds for cost in few)
        print(f"{name:24}{before:16.2f}{after:16.2f}{after - before:8.2f}{waited:12.2f}")
        figures[f"{name}, more"] = round(after - before, 2)
    print(json.dumps({"benchmark": "scale", "figures": figures}))


if __name__ == "__main__":
    main()
