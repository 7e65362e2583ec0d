"""What a whole trained ResNet50 gains over heads on its frozen features, on real tiles.

Each organ is the target once, with the other ones of `--organs` as sources. A third of its groups
is the test set; the rest is trained on without labels. Every fifth group of each source organ and
label is held out for validation. Hyperparameters are fixed, and the last epoch is judged: nothing
is picked. A finished cell is kept in build/finetune/ and found there by the next run.

`--protocols` trains under other protocols of the grid (`oncoshift paper`) too. On frozen features
the grid cannot show what a random start or the paper's optimisation does to a whole network. A
protocol changes the settings here as it does there. Where it splits by tile, each tile is a group
of its own for the split; intervals are over groups nevertheless.

Run: python benchmarks/finetune.py --device cuda      (some ten minutes on a data-centre GPU)
     python benchmarks/finetune.py --freeze all       (heads alone, which two CPU cores can do)
     python benchmarks/finetune.py --device cuda --freeze none --organs lung colon breast
         --methods erm dann --protocols paper honest tile_split random_start paper_training
         --at-once 6 --results build/protocols.jsonl
Needs the real tiles and weights of ONCOSHIFT_SHARED (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from frozen_features import DOMAIN_HEAD, ORGANS, SHARED, number_groups, training_data
from rich.console import Console
from rich.table import Table

from oncoshift.errors import UntrainableError
from oncoshift.evaluation.comparison import compare_predictions
from oncoshift.evaluation.domains import evaluate_domains
from oncoshift.files import sha256_file
from oncoshift.fingerprint import fingerprint_value
from oncoshift.grid.registry import HONEST, PROTOCOLS
from oncoshift.methods.registry import METHODS
from oncoshift.parallel import count_usable_cores
from oncoshift.serving.images import decode
from oncoshift.settings import EvaluateSettings, parse_settings, replace_values
from oncoshift.settings.files import merge, parse_override
from oncoshift.training.devices import pick_device, pick_precision
from oncoshift.training.job import Job, predict_job, train_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oncoshift.data.tables import TrainingData
    from oncoshift.settings import Settings
    from oncoshift.training.epoch import Epoch

BUILD = Path("build/finetune")
DEFAULT_METHODS = ("erm", "dann_mcc", "self_training", "dann")
TRUNK = {"none": "whole network", "all": "heads alone"}
CONTROL = "erm"
"""The method that the gains of others are over."""
SAID_EVERY = 10
"""Epochs between two lines of progress."""


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        freeze: none or all.
        seed: of the training.
        method: its name.
        target: the organ without labels.
        sources: the labelled organs.
        protocol: its name.
    """

    freeze: str
    seed: int
    method: str
    target: str
    sources: tuple[str, ...]
    protocol: str = HONEST

    @property
    def entry(self) -> str:
        """What all seeds of it have in common, for the table."""
        return name_entry(self.protocol, self.freeze, self.method, self.target)


@dataclass(frozen=True)
class Outcome:
    """The result of a training.

    Attributes:
        cell: that was trained.
        device: that it was trained on.
        precision: of its steps.
        seconds: it took.
        peak_gib: of memory on the GPU; 0 without one.
        failure: why it could not be trained; empty if it was.
        history: figures of its epochs.
        predictions: columns of the target's test tiles.
    """

    cell: Cell
    device: str
    precision: str
    seconds: float
    peak_gib: float = 0.0
    failure: str = ""
    history: tuple[dict[str, float], ...] = ()
    predictions: dict[str, list[Any]] | None = None

    @property
    def table(self) -> pd.DataFrame:
        """Predictions with the columns that the evaluation reads."""
        return pd.DataFrame(self.predictions).assign(organ=self.cell.entry, seed=self.cell.seed)

    def describe(self) -> str:
        """Say in a line how it went."""
        start = f"{self.seconds:5.1f} s  {self.cell.entry} · seed {self.cell.seed}: "
        if self.failure:
            return start + self.failure
        (result,) = evaluate_domains(self.table, EvaluateSettings()).organs
        sources = f"sources {self.history[-1]['source_accuracy']:.3f}"
        return f"{start}{result.in_words('balanced_accuracy')}, AUROC {result.in_words('auroc')}, {sources}"


def name_entry(protocol: str, freeze: str, method: str, target: str) -> str:
    """Name an entry of the table."""
    return f"{protocol} · {TRUNK[freeze]} · {method} · {target}"


class Tiles:
    """All real tiles of some organs, decoded in memory, and their splits."""

    def __init__(self, shared: Path, organs: tuple[str, ...]) -> None:
        """Decode the tiles."""
        table = shared / "data" / "tiles.csv"
        every = pd.read_csv(table)
        self.table = every[every["organ"].isin(organs)].reset_index(drop=True)
        digest = sha256_file(table)
        self.digest = digest if len(self.table) == len(every) else fingerprint_value([digest, sorted(organs)])
        paths = [shared / "data" / "tiles" / path for path in self.table["path"]]
        with ThreadPoolExecutor() as pool:
            self.images: NDArray[np.uint8] = np.stack(list(pool.map(lambda path: decode(path.read_bytes()), paths)))
        self.labels = np.asarray(self.table["label"] == "malignant", np.int64)

    def for_training(self, cell: Cell, by: str) -> TrainingData:
        """Select what a training may see; `by` is group or tile."""
        data: TrainingData = training_data(self._split(by), cell, self.images, self._tests(by))
        return data

    def for_test(self, target: str, by: str) -> NDArray[np.int64]:
        """List the rows of the target's test tiles."""
        return np.flatnonzero((self.table["organ"] == target).to_numpy() & self._tests(by))

    def name_data(self, by: str) -> str:
        """Name what a training reads, by its content."""
        return self.digest if by == "group" else fingerprint_value([self.digest, by])

    def _split(self, by: str) -> pd.DataFrame:
        return self.table if by == "group" else self.table.assign(group=self.table["path"])

    def _tests(self, by: str) -> NDArray[np.bool_]:
        tests: NDArray[np.bool_] = number_groups(self._split(by)) % 3 == 2
        return tests


def experiment(cell: Cell, given: argparse.Namespace) -> Settings:
    """Return the settings of a cell."""
    whole = cell.freeze == "none"
    honest = {
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
    values = replace_values(parse_settings(honest), PROTOCOLS[cell.protocol].changes).model_dump(mode="json")
    for override in given.set:
        values = merge(values, parse_override(override))
    return parse_settings(values)


def run(cell: Cell, tiles: Tiles, given: argparse.Namespace) -> Outcome:
    """Train a cell, and predict the target's test tiles."""
    began = time.monotonic()
    settings = experiment(cell, given)
    by, epochs = settings.split.by, settings.train.epochs

    def report(epoch: Epoch) -> None:
        done = epoch.number + 1
        if done % SAID_EVERY == 0 and done < epochs:
            spent = time.monotonic() - began
            print(f"        {cell.entry} · seed {cell.seed}: epoch {done} of {epochs}, {spent:.0f} s", flush=True)

    device = pick_device(given.device)
    on_gpu = device.type == "cuda"
    ran_on = torch.cuda.get_device_name(device) if on_gpu else "cpu", pick_precision(settings.train, device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    job = Job(settings, tiles.name_data(by), tiles.digest, BUILD / "jobs", BUILD / "features")
    try:
        trained = train_job(job, tiles.for_training(cell, by), report)
    except UntrainableError as error:
        return Outcome(cell, *ran_on, time.monotonic() - began, failure=str(error))
    seconds = time.monotonic() - began
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    rows = tiles.for_test(cell.target, by)
    table = tiles.table.iloc[rows]
    predictions = {
        "tile_id": table["path"].tolist(),
        "group": table["group"].tolist(),
        "label": tiles.labels[rows].tolist(),
        "probability": predict_job(trained, tiles.images, rows).tolist(),
    }
    history = tuple(dict(epoch) for epoch in trained.history)
    return Outcome(cell, *ran_on, seconds, peak, "", history, predictions)


def run_in_time(cell: Cell, given: argparse.Namespace, deadline: float) -> Outcome | None:
    """Do as `run` does, in this process or in one of several; None if no cell may be begun."""
    if time.time() > deadline:
        return None
    if given.at_once > 1:
        torch.set_num_threads(max(count_usable_cores() // given.at_once, 1))
    return run(cell, load_tiles(tuple(given.organs)), given)


@cache
def load_tiles(organs: tuple[str, ...]) -> Tiles:
    """Decode the tiles, once in a process."""
    began = time.monotonic()
    tiles = Tiles(SHARED, organs)
    print(f"{len(tiles.images)} tiles in {time.monotonic() - began:.0f} s", flush=True)
    return tiles


def run_all(cells: list[Cell], given: argparse.Namespace, deadline: float) -> Iterator[Outcome]:
    """Run cells in their order, `--at-once` of them at a time, and yield each as it ends."""
    if given.at_once == 1:
        for cell in cells:
            if (outcome := run_in_time(cell, given, deadline)) is not None:
                yield outcome
        return
    spawn = multiprocessing.get_context("spawn")  # a forked process could not use the GPU
    with ProcessPoolExecutor(given.at_once, spawn) as pool:
        for future in as_completed([pool.submit(run_in_time, cell, given, deadline) for cell in cells]):
            if (outcome := future.result()) is not None:
                yield outcome


class Results:
    """Outcomes in memory and, as lines of JSON, in a file."""

    def __init__(self, path: Path | None, options: dict[str, Any]) -> None:
        """Read the file's outcomes with these options, which decide them together with the cell."""
        self.path, self.options = path, options
        self.outcomes: list[Outcome] = []
        if path is not None and path.is_file():
            for line in path.read_text().splitlines():
                read = json.loads(line)
                if read.pop("options") == options:
                    cell = read.pop("cell")
                    cell["sources"] = tuple(cell["sources"])
                    self.outcomes.append(Outcome(Cell(**cell), **read))

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome."""
        self.outcomes.append(outcome)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps({"options": self.options, **asdict(outcome)}) + "\n")


def show(results: Results, given: argparse.Namespace) -> dict[str, float]:
    """Print tables of accuracy and gains; return each entry's mean balanced accuracy."""
    trained = [outcome for outcome in results.outcomes if outcome.predictions is not None]
    failed = {outcome.cell.entry for outcome in results.outcomes if outcome.predictions is None}
    predictions = pd.concat([outcome.table for outcome in trained]) if trained else pd.DataFrame()
    found = {each.organ: each for each in evaluate_domains(predictions, EvaluateSettings()).organs} if trained else {}
    table = Table(title="Balanced accuracy on the target's test groups [95 % over groups and seeds]; on its sources")
    gains = Table(title=f"Gain over {CONTROL}, paired by group")
    for column in ("protocol", "trained", "method", *given.organs):
        table.add_column(column)
        gains.add_column(column)
    figures = {}
    for protocol, freeze, method in product(given.protocols, TRUNK, given.methods):
        entries = [name_entry(protocol, freeze, method, organ) for organ in given.organs]
        if not any(entry in found or entry in failed for entry in entries):
            continue
        words = []
        for organ, entry in zip(given.organs, entries, strict=True):
            if entry not in found:
                words.append("cannot be trained" if entry in failed else "not run")
                continue
            sources = np.mean([each.history[-1]["source_accuracy"] for each in trained if each.cell.entry == entry])
            words.append(f"{found[entry].in_words('balanced_accuracy')}; {sources:.3f}")
            if (mean := found[entry].mean("balanced_accuracy")) is not None:
                name = f"{TRUNK[freeze]} {method} {organ}"
                figures[(name if protocol == HONEST else f"{protocol} {name}").replace(" ", "_")] = mean
        table.add_row(protocol, TRUNK[freeze], method, *words)
        if method != CONTROL:
            controls = [name_entry(protocol, freeze, CONTROL, organ) for organ in given.organs]
            pairs = zip(controls, entries, strict=True)
            gains.add_row(protocol, TRUNK[freeze], method, *(compare(predictions, *pair) for pair in pairs))
    for each in (table, gains) if gains.row_count else (table,):
        Console(width=170).print(each)
    return figures


def compare(predictions: pd.DataFrame, control: str, entry: str) -> str:
    """Say how much better an entry is than its control, by the seeds that both have."""
    a, b = (predictions[predictions["organ"] == name] for name in (control, entry))
    seeds = set(a["seed"]) & set(b["seed"])
    if not seeds:
        return "–"
    tables = [each[each["seed"].isin(seeds)].assign(organ=entry) for each in (a, b)]
    found = compare_predictions((control, tables[0]), (entry, tables[1]), entry, EvaluateSettings())
    pair = found.metrics["balanced_accuracy"]
    gain = f"{pair.b - pair.a:+.3f}" if pair.difference is None else pair.difference.format_signed()
    return f"{gain}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--freeze", choices=tuple(TRUNK), action="append", help="default: both")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=DEFAULT_METHODS)
    parser.add_argument("--organs", nargs="+", choices=ORGANS, default=ORGANS, help="a target's sources are the others")
    parser.add_argument("--targets", nargs="+", choices=ORGANS, help="default: each of --organs")
    parser.add_argument("--protocols", nargs="+", choices=tuple(PROTOCOLS), default=(HONEST,))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--epochs", type=int, default=12, help="of 30 steps with 64 source and 64 target tiles, where the protocol "
        "does not say otherwise"
    )  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every training")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no cell is begun")
    parser.add_argument("--at-once", type=int, default=1, help="trainings that share the device, each a process")
    parser.add_argument("--results", type=Path, help="file that gets each outcome as a line, and whose cells are done")
    parser.add_argument("--compile", action="store_true", help="torch.compile for the whole network")
    return parser.parse_args()


def list_cells(given: argparse.Namespace) -> list[Cell]:
    """List the cells, seed by seed, so that a stop leaves whole seeds."""
    order = product(
        range(given.seeds),
        given.protocols,
        given.targets or given.organs,
        given.methods,
        given.freeze or tuple(TRUNK),
    )
    return [
        Cell(freeze, seed, method, target, tuple(organ for organ in given.organs if organ != target), protocol)
        for seed, protocol, target, method, freeze in order
    ]


def main() -> None:
    """Train the cells, seed by seed, print the table, and the figures as one JSON object."""
    given = arguments()
    if not (SHARED / "data" / "tiles.csv").is_file():
        sys.exit(f"there are no real tiles in {SHARED / 'data'}: set ONCOSHIFT_SHARED")
    deadline = time.time() + 60 * given.minutes
    cells = list_cells(given)
    options = {"epochs": given.epochs, "compile": given.compile, "set": given.set}
    results = Results(given.results, options)
    done = {outcome.cell for outcome in results.outcomes}
    for outcome in run_all([cell for cell in cells if cell not in done], given, deadline):
        results.add(outcome)
        print(outcome.describe(), flush=True)
    if left := set(cells) - {outcome.cell for outcome in results.outcomes}:
        print(f"{given.minutes:g} minutes are over: {len(left)} of {len(cells)} cells are not run")
    figures = show(results, given)
    for freeze in TRUNK:
        if took := [outcome.seconds for outcome in results.outcomes if outcome.cell.freeze == freeze]:
            figures[f"seconds_{freeze}"] = float(np.median(took))
    if peak := max((outcome.peak_gib for outcome in results.outcomes), default=0.0):
        figures["peak_gib"] = peak
    ran_on = {name: sorted({getattr(each, name) for each in results.outcomes}) for name in ("device", "precision")}
    about = {**ran_on, **options, "trainings": len(results.outcomes), "at_once": given.at_once}
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({"benchmark": "finetune", "about": about, "figures": rounded}))


if __name__ == "__main__":
    main()
