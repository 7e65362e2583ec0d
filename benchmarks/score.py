"""Throughput of `oncoshift score --out` beside that of the bare network, in the same run.

A network with random weights is saved as a registered model is, with the limits that it carries.
Scoring reads JPEG tiles of 256² from a folder, decodes, checks and classifies them, and writes
Parquet. The bare network is the same graph in ONNX Runtime on decoded tiles, 64 a batch. Both are
timed in turns, and the medians are compared.

Run: python benchmarks/score.py                        (ResNet50; three minutes on two cores)
     python benchmarks/score.py --backbone resnet18    (a smaller network, so decoding counts more)
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from served_model import make_tiles, save_model

from oncoshift.registry.loading import load_identified
from oncoshift.scoring.inputs import TileInput
from oncoshift.scoring.output import open_scores
from oncoshift.scoring.run import BATCH_TILES, count_network_threads, score_tiles
from oncoshift.serving.config import GRAPH
from oncoshift.serving.network import OnnxNetwork

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.pyfunc import PyFuncModel

SIDE, RAW_SIDE, DISTINCT = 224, 256, 32


def write_tiles(folder: Path, count: int) -> None:
    """Write JPEG files."""
    folder.mkdir()
    for number, tile in enumerate(make_tiles(DISTINCT, RAW_SIDE)):
        for copy in range(number, count, DISTINCT):
            Image.fromarray(tile).save(folder / f"{copy:06d}.jpg", quality=90)


def time_network(network: OnnxNetwork, count: int) -> float:
    """Run the bare network; return tiles per second."""
    batch = np.resize(make_tiles(DISTINCT, SIDE), (BATCH_TILES, SIDE, SIDE, 3))
    network(batch)
    began = time.perf_counter()
    for _ in range(count // BATCH_TILES):
        network(batch)
    return count / (time.perf_counter() - began)


def time_scoring(model: PyFuncModel, folder: Path, out: Path, count: int) -> float:
    """Score a folder; return tiles per second, from listing to the last Parquet part."""
    _, identity = load_identified(str(folder.parent / "model"))
    began = time.perf_counter()
    with open_scores(out, identity, folder) as scores:
        score_tiles(
            lambda images: cast("pd.DataFrame", model.predict(images)),
            TileInput(folder),
            scores,
            lambda _done, _total: None,
        )
        seconds = time.perf_counter() - began
        assert scores.sum_up().errors == 0
    return count / seconds


def main() -> None:
    """Print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=("resnet18", "resnet50"), default="resnet50")
    parser.add_argument("--tiles", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    count = given.tiles // BATCH_TILES * BATCH_TILES
    bare, scored = [], []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        save_model(root / "model", make_tiles(DISTINCT, SIDE), given.backbone)
        write_tiles(root / "tiles", count)
        network = OnnxNetwork(root / "model" / "artifacts" / GRAPH)
        model, _ = load_identified(str(root / "model"), threads=count_network_threads())
        time_scoring(model, root / "tiles", root / "warm", count)
        for number in range(given.rounds):
            bare.append(time_network(network, count))
            scored.append(time_scoring(model, root / "tiles", root / f"scores{number}", count))
    figures = {
        "network_tiles_per_second": round(float(np.median(bare)), 1),
        "score_tiles_per_second": round(float(np.median(scored)), 1),
        "score_ratio": round(float(np.median(scored) / np.median(bare)), 3),
    }
    table = Table("", "tiles per second", title=f"{given.backbone}, {count} JPEG tiles of {RAW_SIDE}² at {SIDE}²")
    table.add_row("bare network", f"{figures['network_tiles_per_second']:.1f}")
    table.add_row("oncoshift score --out", f"{figures['score_tiles_per_second']:.1f}")
    Console().print(table)
    print(
        json.dumps(
            {"benchmark": "score", "figures": {f"{given.backbone}_{name}": each for name, each in figures.items()}}
        )
    )


if __name__ == "__main__":
    main()
