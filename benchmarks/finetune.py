"""What a whole trained ResNet50 gains over heads on its frozen features, on real tiles.

Each organ is the target once, with the three others as sources. A third of its groups is the test
set; the rest is trained on without labels. Every fifth group of each source organ and label is held
out for validation. Hyperparameters are fixed, and the last epoch is judged: nothing is picked. A
finished cell is kept in build/finetune/ and found there by the next run.

Run: python benchmarks/finetune.py --device cuda      (some ten minutes on a data-centre GPU)
     python benchmarks/finetune.py --freeze all       (heads alone, which two CPU cores can do)
Needs the real tiles and weights of ONCOSHIFT_SHARED (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from frozen_features import DOMAIN_HEAD, ORGANS, SHARED, number_groups, training_data
from rich.console import Console
from rich.table import Table

from oncoshift.evaluation.domains import evaluate_domains
from oncoshift.files import sha256_file
from oncoshift.methods.registry import METHODS
from oncoshift.serving.images import decode
from oncoshift.settings import EvaluateSettings, parse_settings
from oncoshift.training.devices import pick_device, pick_precision
from oncoshift.training.job import Job, predict_job, train_job

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.data.tables import TrainingData
    from oncoshift.settings import Settings

BUILD = Path("build/finetune")
DEFAULT_METHODS = ("erm", "dann_mcc", "self_training", "dann")
TRUNK = {"none": "whole network", "all": "heads alone"}


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        freeze: none or all.
        seed: of the training.
        method: its name.
        target: the organ without labels.
    """

    freeze: str
    seed: int
    method: str
    target: str

    @property
    def sources(self) -> tuple[str, ...]:
        """The labelled organs."""
        return tuple(organ for organ in ORGANS if organ != self.target)


class Tiles:
    """All real tiles, decoded in memory, and their splits."""

    def __init__(self, shared: Path) -> None:
        """Decode the tiles."""
        table = shared / "data" / "tiles.csv"
        self.table = pd.read_csv(table)
        self.digest = sha256_file(table)
        paths = [shared / "data" / "tiles" / path for path in self.table["path"]]
        with ThreadPoolExecutor() as pool:
            self.images: NDArray[np.uint8] = np.stack(list(pool.map(lambda path: decode(path.read_bytes()), paths)))
        self.labels = np.asarray(self.table["label"] == "malignant", np.int64)
        self._tests: NDArray[np.bool_] = number_groups(self.table) % 3 == 2

    def for_training(self, cell: Cell) -> TrainingData:
        """Select what a training may see."""
        data: TrainingData = training_data(self.table, cell, self.images, self._tests)
        return data

    def for_test(self, target: str) -> NDArray[np.int64]:
        """List the rows of the target's test tiles."""
        return np.flatnonzero((self.table["organ"] == target).to_numpy() & self._tests)


def experiment(cell: Cell, given: argparse.Namespace) -> Settings:
    """Return the settings of a cell."""
    whole = cell.freeze == "none"
    return parse_settings(
        {
            "target": cell.target,
            "sources": cell.sources,
            "seed": cell.seed,
            "model": {
                "backbone": "resnet50",
                "weights": str(SHARED / "weights" / "resnet50_imagenet.safetensors"),
                "freeze": cell.freeze,
            },
            "train": {
                "method": cell.method,
                "epochs": given.epochs,
                "steps_per_epoch": 30,
                "batch_size": 64,
                "optimizer": "adamw",
                "lr": 1e-4 if whole else 1e-3,
                "schedule": "cosine",
                "warmup": 0.1,
                "augment": whole,
                "device": given.device,
                "compile": given.compile and whole,
            },
            **dict.fromkeys(("dann", "cdan", "dann_multi", "mdd"), DOMAIN_HEAD),
        }
    )


def run(cell: Cell, tiles: Tiles, given: argparse.Namespace) -> tuple[pd.DataFrame, float]:
    """Train a cell; return predictions of the target's test tiles, and the seconds it took."""
    began = time.monotonic()
    job = Job(experiment(cell, given), tiles.digest, tiles.digest, BUILD / "jobs", BUILD / "features")
    trained = train_job(job, tiles.for_training(cell), lambda _epoch: None)
    seconds = time.monotonic() - began
    rows = tiles.for_test(cell.target)
    table = tiles.table.iloc[rows]
    predictions = pd.DataFrame(
        {
            "tile_id": table["path"].to_numpy(np.str_),
            "organ": f"{TRUNK[cell.freeze]} · {cell.method} · {cell.target}",
            "group": table["group"].to_numpy(np.str_),
            "label": tiles.labels[rows],
            "probability": predict_job(trained, tiles.images, rows),
            "seed": cell.seed,
        }
    )
    return predictions, seconds


def show(predictions: pd.DataFrame, methods: tuple[str, ...]) -> dict[str, float]:
    """Print the table; return each entry's mean balanced accuracy."""
    report = evaluate_domains(predictions, EvaluateSettings())
    found = {result.organ: result for result in report.organs}
    table = Table(title="Balanced accuracy on the target's test groups [95 % over groups and seeds]")
    for column in ("", "method", *ORGANS):
        table.add_column(column)
    figures = {}
    for trunk, method in product(TRUNK.values(), methods):
        results = [found.get(f"{trunk} · {method} · {organ}") for organ in ORGANS]
        if any(results):
            words = ["not run" if result is None else result.in_words("balanced_accuracy") for result in results]
            table.add_row(trunk, method, *words)
        for organ, result in zip(ORGANS, results, strict=True):
            if result is not None and (mean := result.mean("balanced_accuracy")) is not None:
                figures[f"{trunk} {method} {organ}".replace(" ", "_")] = mean
    Console(width=150).print(table)
    return figures


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--freeze", choices=tuple(TRUNK), action="append", help="default: both")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=DEFAULT_METHODS)
    parser.add_argument("--targets", nargs="+", choices=ORGANS, default=ORGANS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12, help="of 30 steps with 64 source and 64 target tiles")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no cell is begun")
    parser.add_argument("--compile", action="store_true", help="torch.compile for the whole network")
    return parser.parse_args()


def main() -> None:
    """Train the cells, seed by seed, print the table, and the figures as one JSON object."""
    given = arguments()
    if not (SHARED / "data" / "tiles.csv").is_file():
        sys.exit(f"there are no real tiles in {SHARED / 'data'}: set ONCOSHIFT_SHARED")
    began = time.monotonic()
    tiles = Tiles(SHARED)
    device = pick_device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    precision = pick_precision(experiment(Cell("none", 0, "erm", "lung"), given).train, device)
    print(f"{len(tiles.images)} tiles in {time.monotonic() - began:.0f} s, {name}, {precision}", flush=True)
    order = product(range(given.seeds), given.methods, given.targets, given.freeze or tuple(TRUNK))
    parts: list[pd.DataFrame] = []
    seconds: dict[str, list[float]] = {freeze: [] for freeze in TRUNK}
    for seed, method, target, freeze in order:
        if time.monotonic() - began > 60 * given.minutes:
            print(f"{given.minutes:g} minutes are over: the other cells are not run")
            break
        predictions, took = run(Cell(freeze, seed, method, target), tiles, given)
        parts.append(predictions)
        seconds[freeze].append(took)
        (result,) = evaluate_domains(predictions, EvaluateSettings()).organs
        print(f"{took:5.1f} s  {result.organ} · seed {seed}: {result.in_words('balanced_accuracy')}", flush=True)
    figures = show(pd.concat(parts), tuple(given.methods))
    figures |= {f"seconds_{freeze}": float(np.median(took)) for freeze, took in seconds.items() if took}
    if device.type == "cuda":
        figures["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    about = {"device": name, "precision": precision, "epochs": given.epochs, "trainings": len(parts)}
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({"benchmark": "finetune", "about": about, "figures": rounded}))


if __name__ == "__main__":
    main()
