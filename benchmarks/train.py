"""How fast the training loop is, beside a plain loop, pytorch-adapt and a step without data.

All train DANN with the same network on the same tiles for as many steps: ours from a pack with its
default settings, both peers from JPEG files through a DataLoader, as they are normally used. Each
runs in its own process, and they take turns; ratios are taken within a round, and the table gives
medians over rounds. Beforehand each must show on small tiles that its loss falls.

Run: python benchmarks/train.py                  (ResNet50, 16 + 16 tiles at 224²: eight minutes)
     python benchmarks/train.py --device cuda    (64 + 64; also the compiled loop against its limit,
                                                  at 256 + 256 too, and the cost of more data and
                                                  more organs)
With `--minutes` no part and no round begins after that time, and what was measured is printed. On a
GPU the compiled loop comes first, then the peers, 256 + 256, more data and more organs.
pytorch-adapt comes with `pip install --target build/peers --no-deps -r benchmarks/peers.txt`, and
is left out without it. Tiles come from ONCOSHIFT_SHARED (default ../shared), or are synthetic where
that is absent.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
import os
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from train_contenders import PEERS, Report, Setup, Tile, experiment, serve

from oncoshift.data.packs.make import PackRecipe, update_pack
from oncoshift.data.packs.pack import PackNormalization
from oncoshift.data.packs.tiles import FileReader, TileMaker, TileSource
from oncoshift.parallel import count_usable_cores
from oncoshift.phantom import render_phantom_tile
from oncoshift.settings import PhantomSettings
from oncoshift.training.devices import pick_precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    Rounds = dict[str, list[Report]]

ORGANS = ("lung", "colon", "breast", "kidney")
TARGET = "kidney"
INSTALL = "pip install --target build/peers --no-deps -r benchmarks/peers.txt"
LEARNING_STEPS, FEW = 36, 64
"""Steps in which every contender must learn, and the number of tiles that it must learn."""

WARM_UP = {"cpu": 2, "cuda": 20}
DEFAULTS = {"cpu": {"batch": 16, "steps": 2, "each": 64}, "cuda": {"batch": 64, "steps": 50, "each": 2000}}
PARTS = ("compiled", "peers", "large", "growth")
"""What is measured, the parts of most worth first; by default the CPU has the peers alone."""

GROWTH = (1, 4, 16)
"""How many times an epoch goes over every tile."""


class Contender:
    """A training in its own process."""

    def __init__(self, name: str, setup: Setup) -> None:
        context = get_context("spawn")
        self.name = name
        self._orders: Connection
        self._orders, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=serve, args=(name, setup, theirs))
        self._process.start()
        theirs.close()

    def run(self, steps: int) -> Report:
        """Run a number of steps."""
        self.begin(steps)
        return self.end()

    def begin(self, steps: int) -> None:
        """Begin a number of steps."""
        self._orders.send(steps)

    def end(self) -> Report:
        """Wait for the end of the steps that were begun."""
        try:
            report: Report = self._orders.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            sys.exit(f"{self.name} ended by itself, with code {self._process.exitcode}; its error stands above")
        if not all(map(math.isfinite, report.losses)):
            sys.exit(f"{self.name}: a loss is not finite: {report.losses}")
        return report

    def close(self) -> None:
        """End the process, which waits for orders."""
        if self._process.is_alive():
            self._orders.send(0)
        self._process.join(30)
        self._process.kill()


def real_tiles(folder: Path, each: int) -> list[Tile]:
    """List at most `each` tiles of each organ and label, evenly spaced in their list."""
    with (folder / "tiles.csv").open() as file:
        rows = list(csv.DictReader(file))
    tiles = []
    for organ in ORGANS:
        for number, label in enumerate(("benign", "malignant")):
            paths = [row["path"] for row in rows if (row["organ"], row["label"]) == (organ, label)]
            picked = paths[:: max(len(paths) // each, 1)][:each]
            tiles += [Tile(str(folder / "tiles" / path), organ, number) for path in picked]
    return tiles


def made_up_tiles(folder: Path, each: int, size: int) -> list[Tile]:
    """Write at most `each` synthetic tiles of each organ and label, as JPEG files."""
    settings = PhantomSettings(tile_size=size)
    tiles = []
    for organ in ORGANS:
        for label in (0, 1):
            for number in range(min(each, 64)):
                path = folder / f"{organ}-{label}-{number}.jpg"
                buffer = io.BytesIO()
                Image.fromarray(render_phantom_tile(settings, organ, label, number // 8, number % 8).image).save(
                    buffer, "JPEG", quality=87
                )
                path.write_bytes(buffer.getvalue())
                tiles.append(Tile(str(path), organ, label))
    return tiles


def make_pack(folder: Path, tiles: list[Tile], size: int) -> Path:
    """Pack the tiles in their order."""
    sources = [
        TileSource(row, f"{row:05d}", str(row), tile.path, hashlib.sha256(Path(tile.path).read_bytes()).hexdigest())
        for row, tile in enumerate(tiles)
    ]
    recipe = PackRecipe(PackNormalization("none"), size, "benchmark", "none", 512)
    update_pack(folder, sources, recipe, TileMaker(FileReader(Path(), size)))
    return folder


def run_at_once(contenders: Iterable[Contender], steps: int) -> list[Report]:
    """Run steps that are not timed, by all contenders at the same time."""
    begun = list(contenders)
    for contender in begun:
        contender.begin(steps)
    return [contender.end() for contender in begun]


def check_learning(names: list[str], setup: Setup) -> None:
    """Train each contender on small tiles, and exit if its label loss does not fall."""
    third = LEARNING_STEPS // 3
    with ExitStack() as stack:
        reports = run_at_once([stack.enter_context(closing(Contender(name, setup))) for name in names], LEARNING_STEPS)
    for name, report in zip(names, reports, strict=True):
        losses = report.losses
        first, last = float(np.mean(losses[:third])), float(np.mean(losses[-third:]))
        print(f"{name}: label loss on small tiles {first:.3f} → {last:.3f} in {LEARNING_STEPS} steps", flush=True)
        if not last < first:
            sys.exit(f"{name} does not learn: {losses}")


def pick_workers(setup: Setup) -> int:
    """Pick the peers' DataLoader processes, none or one a core, by the plain loop's second step."""
    seconds = {}
    for workers in (0, count_usable_cores()):
        with closing(Contender("plain", replace(setup, workers=workers))) as contender:
            contender.run(1)
            seconds[workers] = contender.run(1).seconds
    return min(seconds, key=lambda workers: seconds[workers])


@dataclass(frozen=True)
class Plan:
    """How contenders take turns.

    Attributes:
        steps: In a turn.
        rounds: Of turns.
        warm_up: Steps before the first turn.
        deadline: Of `time.monotonic`, after which no part and no round begins.
    """

    steps: int
    rounds: int
    warm_up: int
    deadline: float

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.deadline


def race(entries: dict[str, Setup], plan: Plan) -> Rounds:
    """Let contenders take turns; an entry is its contender's name and perhaps a `-suffix`."""
    with ExitStack() as stack:
        contenders = {
            name: stack.enter_context(closing(Contender(name.partition("-")[0], setup)))
            for name, setup in entries.items()
        }
        run_at_once(contenders.values(), plan.warm_up)  # where they are compiled, it takes a minute
        done: Rounds = {name: [] for name in contenders}
        for number in range(plan.rounds):
            if number and plan.is_over:
                break
            for name, contender in contenders.items():
                done[name].append(contender.run(plan.steps))
            last = ", ".join(f"{name} {reports[-1].seconds / plan.steps:.3g}" for name, reports in done.items())
            print(f"round {number + 1} of {plan.rounds}, seconds a step: {last}", flush=True)
    return done


def ratios(rounds: Rounds, name: str, to: str) -> list[float]:
    """Compute how many times as fast one was as another, for each round."""
    return [slow.seconds / fast.seconds for fast, slow in zip(rounds[name], rounds[to], strict=True)]


def wait_share(reports: list[Report]) -> float:
    """Compute the share of the time in which no step was under way."""
    return float(sum(report.waited for report in reports) / sum(report.seconds for report in reports))


def show(title: str, rounds: Rounds, tiles: int) -> None:
    """Print a table; `tiles` is the number of tiles in each turn."""
    table = Table(title=title, title_justify="left")
    first = next(iter(rounds))
    for column in ("", "images/s", f"{first} is faster by", "waits for data", "peak GiB", "label loss"):
        table.add_column(column, justify="right" if column else "left")
    for name, reports in rounds.items():
        faster = ratios(rounds, first, name)
        losses = [loss for report in reports for loss in report.losses]
        table.add_row(
            name,
            f"{np.median([tiles / report.seconds for report in reports]):.4g}",
            "" if name == first else f"{np.median(faster):.2f} ({min(faster):.2f} to {max(faster):.2f})",
            f"{wait_share(reports):.2%}",
            f"{reports[-1].peak_bytes / 2**30:.1f}",
            f"{losses[0]:.3f} → {losses[-1]:.3f}",
        )
    Console(width=100).print(table)


def compare(setup: Setup, peers: list[str], plan: Plan) -> dict[str, float]:
    """Compare ours with its default settings to the peers and the bare step."""
    done = race(dict.fromkeys(["ours", *peers, "bare"], setup), plan)
    tiles = 2 * setup.batch * plan.steps
    show(f"{setup.backbone}, {setup.batch} + {setup.batch} tiles at {setup.size}²", done, tiles)
    figures = {f"{name}_images_per_second": tiles / float(np.median([r.seconds for r in done[name]])) for name in done}
    for name in peers:
        found = ratios(done, "ours", name)
        figures |= {f"{name}_ratio": float(np.median(found)), f"{name}_ratio_min": min(found)}
        figures |= {f"{name}_ratio_max": max(found)}
    figures["eager_bare_share"] = float(np.median(ratios(done, "ours", "bare")))
    figures |= {"data_wait_share": wait_share(done["ours"]), "peak_gib": done["ours"][-1].peak_bytes / 2**30}
    return figures | {"rounds": len(done["ours"])}


def compare_compiled(setup: Setup, batch: int, plan: Plan) -> dict[str, float]:
    """Compare ours and the bare step, both compiled, at a batch size."""
    compiled = replace(setup, batch=batch, compile=True)
    done = race({"ours": compiled, "bare": compiled}, plan)
    tiles = 2 * batch * plan.steps
    show(f"compiled, {batch} + {batch}", done, tiles)
    return {
        f"bare_share_{batch}": float(np.median(ratios(done, "ours", "bare"))),
        f"images_per_second_{batch}": tiles / float(np.median([report.seconds for report in done["ours"]])),
        f"data_wait_share_{batch}": wait_share(done["ours"]),
        f"peak_gib_{batch}": done["ours"][-1].peak_bytes / 2**30,
        f"bare_peak_gib_{batch}": done["bare"][-1].peak_bytes / 2**30,
        f"rounds_{batch}": len(done["ours"]),
    }


def grow(setup: Setup, plan: Plan) -> dict[str, float]:
    """Measure how an epoch's time grows with tiles, and a step's with source organs."""
    figures, tiles, seconds = {}, [], []
    for repeat in GROWTH:
        steps = repeat * len(setup.of(*setup.sources)) // setup.batch
        with closing(Contender("ours", replace(setup, repeat=repeat, steps=plan.warm_up + steps))) as contender:
            contender.run(plan.warm_up)
            tiles.append(steps * setup.batch)
            seconds.append(contender.run(steps).seconds)
        figures[f"epoch_seconds_{tiles[-1]}_tiles"] = seconds[-1]
        print(f"{tiles[-1]} source tiles: an epoch in {seconds[-1]:.3g} s", flush=True)
    figures["growth_exponent"] = float(np.polyfit(np.log(tiles), np.log(seconds), 1)[0])
    entries = {f"ours-{count}": replace(setup, sources=setup.sources[:count]) for count in (1, 2, 3)}
    done = race(entries, replace(plan, steps=setup.steps - plan.warm_up, rounds=1))
    base = done["ours-1"][0].seconds
    return figures | {f"step_of_{name[-1]}_organs_to_1": reports[0].seconds / base for name, reports in done.items()}


def measure(setup: Setup, peers: list[str], plan: Plan, wanted: Sequence[str]) -> dict[str, float]:
    """Measure part after part, in the order of `PARTS`, while there is time."""
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "compiled": lambda: compare_compiled(setup, setup.batch, plan),
        "peers": lambda: compare(setup, peers, plan),
        "large": lambda: compare_compiled(setup, 4 * setup.batch, plan),
        "growth": lambda: grow(setup, plan),
    }
    figures: dict[str, float] = {}
    for name in PARTS:
        if name not in wanted:
            continue
        if plan.is_over:
            print(f"{name}: not measured, the time is over", flush=True)
            continue
        began = time.monotonic()
        found = parts[name]()
        figures |= found
        print(f"{name}: {time.monotonic() - began:.0f} s, {json.dumps(found)}", flush=True)
    return figures


def arguments() -> argparse.Namespace:
    """Parse the command line, with the device's defaults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backbone", choices=("resnet18", "resnet50"), default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="side of a tile, pixels")
    parser.add_argument("--batch", type=int, help="source tiles a step; as many target tiles come beside them")
    parser.add_argument("--steps", type=int, help="in a turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--each", type=int, help="most tiles of each organ and label")
    parser.add_argument("--workers", type=int, help="processes of the peers' DataLoader; default: none, or one a core")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no part and no round begins")
    parser.add_argument(
        "--threads", type=int, default=count_usable_cores(), help="of torch; fewer where cores are busy"
    )
    parser.add_argument("--all", action="store_true", help="on the CPU too: the compiled loop, more data, more organs")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, help="these alone: compiled loop, peers, 256 + 256, growth"
    )
    given = parser.parse_args()
    if given.parts is None:
        given.parts = PARTS if given.device == "cuda" or given.all else ("peers",)
    for name, value in DEFAULTS[given.device].items():
        if getattr(given, name, None) is None:
            setattr(given, name, value)
    return given


def main() -> None:
    """Print tables, then the figures as one JSON object."""
    given = arguments()
    deadline = time.monotonic() + 60 * given.minutes
    peers = ["plain"]
    if PEERS.is_dir():
        peers.append("pytorch_adapt")
    else:
        print(f"pytorch-adapt is not in {PEERS}: {INSTALL}")
    warm_up = WARM_UP[given.device]
    shared = Path(os.environ.get("ONCOSHIFT_SHARED", "../shared")).resolve() / "data"
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        real = (shared / "tiles.csv").is_file()
        tiles = real_tiles(shared, given.each) if real else made_up_tiles(scratch, given.each, given.size)
        setup = Setup(
            tiles=tuple(tiles),
            pack=make_pack(scratch / "pack", tiles, given.size),
            target=TARGET,
            sources=tuple(organ for organ in ORGANS if organ != TARGET),
            device=given.device,
            backbone=given.backbone,
            size=given.size,
            batch=given.batch,
            steps=warm_up + given.rounds * given.steps,
            threads=given.threads,
        )
        precision = pick_precision(experiment(setup).train, torch.device(given.device))
        about = {name: getattr(given, name) for name in ("device", "backbone", "size", "batch", "steps", "rounds")}
        about |= {"threads": given.threads, "tiles": len(tiles), "real_tiles": real, "precision": precision}
        about["vector_unit"] = torch.backends.cpu.get_cpu_capability()
        print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
        few = tiles[:: len(tiles) // FEW]
        small = replace(setup, tiles=tuple(few), pack=make_pack(scratch / "small", few, 64), size=64)
        check_learning(["ours", *peers], replace(small, backbone="resnet18", batch=16, steps=LEARNING_STEPS))
        if "peers" in given.parts:
            setup = replace(setup, workers=pick_workers(setup) if given.workers is None else given.workers)
            about["workers"] = setup.workers
        plan = Plan(given.steps, given.rounds, warm_up, deadline)
        figures = measure(setup, peers, plan, given.parts)
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({"benchmark": "train", "about": about, "figures": rounded}))


if __name__ == "__main__":
    main()
