"""Two trainings that share the cores, compared with one alone; and one alone, compared with torch.

A training is either heads on the features of a frozen ResNet18 or a whole ResNet18 at 64². Three
runs take turns: one training alone, two at once, and one alone with torch's own defaults (as many
threads as cores, and they spin while they wait). Each ratio is taken within one round, so that
other load on the machine affects both sides. The table gives medians over rounds.

Run: python benchmarks/contention.py            (five minutes on two cores)
OMP_NUM_THREADS must not be set: it would override the thread counts that are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import IO, Any, cast

import numpy as np

from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.parallel import count_usable_cores
from oncoshift.settings import Settings, parse_settings

KINDS: dict[str, dict[str, Any]] = {
    "heads": {"freeze": "all", "size": 32, "epochs": 4, "steps": 30, "batch": 32},
    "whole": {"freeze": "none", "size": 64, "epochs": 1, "steps": 10, "batch": 16},
}
TILES = 96
"""Tiles of each organ."""

SPINNING = {"GOMP_SPINCOUNT": "300000"}
"""libgomp's default where no waiting policy is set."""


def settings(kind: str, seed: int, threads: int | None) -> Settings:
    """Return the settings of one training."""
    how = KINDS[kind]
    train = {"method": "dann", "epochs": how["epochs"], "steps_per_epoch": how["steps"], "batch_size": how["batch"],
             "threads": threads, "device": "cpu", "precision": "32-true"}  # fmt: skip
    model = {"backbone": "resnet18", "weights": "none", "freeze": how["freeze"]}
    return parse_settings({"sources": ["lung", "colon"], "seed": seed, "model": model, "train": train})


def made_up(size: int) -> TrainingData:
    """Make noise tiles whose brightness tells their label."""
    rng = np.random.default_rng(0)
    labels = np.arange(3 * TILES) % 2
    images = np.clip(rng.normal(120, 40, (3 * TILES, size, size, 3)) + 40 * labels[:, None, None, None], 0, 255)
    pack = images.astype(np.uint8)

    def source(kept: bool) -> SourceTiles:
        rows = np.flatnonzero((np.arange(2 * TILES) % 5 != 4) == kept)
        return SourceTiles(pack, rows, labels[rows], rows // TILES, ("lung", "colon"))

    return TrainingData(source(True), source(False), TargetTiles(pack, np.arange(2 * TILES, 3 * TILES)))


def work(kind: str, threads: int | None) -> None:
    """Train once, and again for each line on stdin; print the seconds of each training."""
    from oncoshift.training.job import Job, train_job

    data, seed = made_up(KINDS[kind]["size"]), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        while not seed or sys.stdin.readline():
            job = Job(settings(kind, seed, threads), "data", "pack", folder / "jobs", folder / "features")
            began = time.perf_counter()
            train_job(job, data, lambda _row: None)
            print(time.perf_counter() - began, flush=True)
            seed += 1


class Worker:
    """A process that trains on request."""

    def __init__(self, kind: str, threads: int | None = None, **environment: str) -> None:
        command = [sys.executable, __file__, "--work", kind, *([] if threads is None else ["--threads", str(threads)])]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=os.environ | environment, stdin=pipe, stdout=pipe, text=True)
        self.seconds()  # wait for the first training, which also computes the features

    def ask(self) -> None:
        """Request a training."""
        to = cast("IO[str]", self.process.stdin)
        to.write("\n")
        to.flush()

    def seconds(self) -> float:
        """Wait for the requested training and return its seconds."""
        return float(cast("IO[str]", self.process.stdout).readline())

    def end(self) -> None:
        """End the process."""
        cast("IO[str]", self.process.stdin).close()
        self.process.wait()


def measure(kind: str, rounds: int) -> dict[str, float]:
    """Measure the median seconds of one training alone, and the ratios to it."""
    first, second = Worker(kind), Worker(kind)
    before = Worker(kind, count_usable_cores(), **SPINNING)
    alone, pair, ratio = [], [], []
    for _ in range(rounds):
        first.ask()
        alone.append(first.seconds())
        for worker in (first, second):
            worker.ask()
        pair.append(max(worker.seconds() for worker in (first, second)) / alone[-1])
        before.ask()
        ratio.append(alone[-1] / before.seconds())
    for worker in (first, second, before):
        worker.end()
    return {"seconds": median(alone), "pair_ratio": median(pair), "alone_ratio": median(ratio)}


def main() -> None:
    """Print a table, then the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        return work(given.work, given.threads)
    found = {kind: measure(kind, given.rounds) for kind in KINDS}
    print(f"{'':>8} {'alone':>8} {'two at once / alone':>20} {'alone / as torch runs it by itself':>36}")
    for kind, row in found.items():
        print(f"{kind:>8} {row['seconds']:>6.2f} s {row['pair_ratio']:>20.2f} {row['alone_ratio']:>36.2f}")
    figures = {
        f"{kind}_{name}": round(row[name], 2) for kind, row in found.items() for name in ("pair_ratio", "alone_ratio")
    }
    figures["pair_ratio"] = max(figures[f"{kind}_pair_ratio"] for kind in KINDS)
    print(json.dumps({"benchmark": "contention", "figures": figures}))
    return None


if __name__ == "__main__":
    main()
