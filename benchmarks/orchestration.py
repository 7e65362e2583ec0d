"""What a retraining with nothing to do costs, and the shares of Prefect, MLflow and DVC.

A small project is retrained once. Then `oncoshift retrain` runs again with nothing changed: by
hand, where no Prefect server is started, and as the flow with a server of its own. For comparison,
the costs that no such command can avoid: importing MLflow, and DVC's comparison of the data. The
commands take turns, and the table gives medians. CPU seconds are summed over all processes; on a
machine that does other work they are more reliable than wall-clock time. Last comes how long a task
waits for its turn on a GPU that is free, on a Prefect server as the flow starts it.

Run: python benchmarks/orchestration.py         (five minutes on two cores)
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL: dict[str, dict[str, Any]] = {
    "phantom": {"organs": ["lung", "colon", "kidney"], "tile_size": 32, "groups_per_class": 8, "tiles_per_group": 3},
    "split": {"audit_share": 0.35, "test_share": 0.35},
    "normalize": {"variants": ["none"], "tile_size": 32},
    "train": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 8, "threads": 1},
    "tune": {"trials": 0},
    "select": {"source_floor": 0.0, "verdict": False},
    "retrain": {"seeds": 1},
    "evaluate": {"bootstrap": 100},
    "explain": {"tiles": 2, "steps": 2},
    "gate": {"min_audit_groups": 2},
}

RETRAIN = "oncoshift retrain, by hand"
FLOW = "the flow with a Prefect server"
LIMITS = ("python -c 'import mlflow'", "dvc status")
COMMANDS = {
    RETRAIN: [sys.executable, "-m", "oncoshift.cli", "retrain"],
    FLOW: [sys.executable, "-m", "flows.retrain"],
    LIMITS[0]: [sys.executable, "-c", "import mlflow"],
    LIMITS[1]: [sys.executable, "-m", "dvc", "status", "normalize"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    "python -c 'import prefect'": [sys.executable, "-c", "import prefect.flows"],
}


TURNS = """
import time
from statistics import median
from prefect import flow, task
from flows.runs import ensure_gpu_limit, holding_gpu
from flows.server import ensure_server

waited = []

@task
def train():
    began = time.perf_counter()
    with holding_gpu("benchmark", print):
        waited.append(time.perf_counter() - began)

@flow
def trainings():
    for _ in range(11):
        train()

with ensure_server():
    ensure_gpu_limit()
    trainings()
print(median(waited[1:]))
"""


class Cost(NamedTuple):
    """A command's cost: wall-clock seconds, and CPU seconds of all its processes."""

    seconds: float
    cpu: float


def small_project(root: Path) -> None:
    """Write a project whose retraining is as short as possible."""
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for section, values in SMALL.items():
        params[section] = {**params[section], **values}
    params |= {"target": "kidney", "sources": ["lung", "colon"]}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def call(command: list[str], root: Path) -> str:
    """Run a command in the project to its end; return its output.

    Raises:
        subprocess.CalledProcessError: The command failed; its output says why.
    """
    paths = [str(REPOSITORY / "src"), str(REPOSITORY)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment |= {"ONCOSHIFT_PROJECT": str(root), "PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        done.check_returncode()
    return done.stdout


def run(command: list[str], root: Path) -> Cost:
    """Run a command as `call` does; return its cost."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    call(command, root)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    """Print a table, then the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        small_project(root)
        run(COMMANDS[FLOW], root)
        turn = float(call([sys.executable, "-c", TURNS], root).splitlines()[-1])
        rounds = [{what: run(command, root) for what, command in COMMANDS.items()} for _ in range(given.rounds)]
    costs = {
        what: Cost(median(each[what].seconds for each in rounds), median(each[what].cpu for each in rounds))
        for what in COMMANDS
    }
    for what, cost in costs.items():
        print(f"{what:<32} {cost.seconds:>7.1f} s {cost.cpu:>7.1f} CPU s")
    print(f"{'a turn on the GPU, which is free':<32} {turn:>7.3f} s")
    figures = {"unchanged_seconds": costs[RETRAIN].seconds, "unchanged_cpu_seconds": costs[RETRAIN].cpu}
    figures |= {"flow_seconds": costs[FLOW].seconds, "flow_cpu_seconds": costs[FLOW].cpu}
    figures["ratio_to_limit"] = costs[RETRAIN].cpu / sum(costs[limit].cpu for limit in LIMITS)
    figures["gpu_turn_seconds"] = turn
    print(
        json.dumps({"benchmark": "orchestration", "figures": {key: round(value, 3) for key, value in figures.items()}})
    )


if __name__ == "__main__":
    main()
