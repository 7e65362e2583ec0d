"""Where an epoch's time goes when the whole trunk is frozen: its steps and its once-an-epoch work.

DANN with heads on the features of a ResNet18: 30 steps of 32 + 32 tiles an epoch, 4,000 target
tiles, 1,000 validation tiles. Features are random numbers, since their values do not affect the
time. CPU seconds are summed over all threads; on a machine that does other work they are more
reliable than wall-clock time. `epoch_ratio` is an epoch's CPU time over that of its bare steps,
including the making of their batches.

Run: python benchmarks/epoch.py
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from functools import wraps
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch

from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.methods.factory import build_method
from oncoshift.settings import parse_settings
from oncoshift.training import loop, validation
from oncoshift.training.inputs import FeatureInputs
from oncoshift.training.loop import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 512
SOURCES, VALIDATION, TARGETS = 4000, 1000, 4000
EPOCHS = 8
SETTINGS = parse_settings(
    {
        "sources": ["lung", "colon"],
        "model": {"backbone": "resnet18", "weights": "none", "freeze": "all"},
        "train": {"method": "dann", "epochs": EPOCHS, "steps_per_epoch": 30, "batch_size": 32, "threads": 1,
                  "device": "cpu", "precision": "32-true", "augment": False},
    }
)  # fmt: skip

PARTS = {
    "batches and steps": (loop._Run, "_train_epoch"),
    "forward over validation and target": (validation, "compute_outputs"),
    "scores that need no label": (validation, "compute_scores"),
    "proxy A-distance": (validation, "proxy_a_distance"),
    "checkpoint": (loop._Run, "_save_checkpoint"),
}
"""The timed parts: the object and attribute through which the training calls each."""


def made_up() -> tuple[TrainingData, FeatureInputs]:
    """Make random features for all tiles; a few of them depend on the tile's class and domain."""
    count = SOURCES + VALIDATION + TARGETS
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (count, WIDTH)).astype(np.float32)
    labels = rng.integers(0, 2, count)
    values[:, :8] += labels[:, None]
    values[-TARGETS:, 8:16] += 1
    images = np.zeros((count, 1, 1, 3), np.uint8)

    def source(first: int, last: int) -> SourceTiles:
        rows = np.arange(first, last)
        return SourceTiles(images, rows, labels[rows], rows % 2, ("lung", "colon"))

    tables = source(0, SOURCES), source(SOURCES, SOURCES + VALIDATION)
    return TrainingData(*tables, TargetTiles(images, np.arange(count - TARGETS, count))), FeatureInputs(values)


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """Wrap a function so that it appends the CPU seconds of each call."""

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            seconds.append(time.process_time() - began)

    return call


def measure(folder: Path) -> dict[str, float]:
    """Measure CPU milliseconds of an epoch and its parts: medians without the first epoch."""
    data, inputs = made_up()
    torch.manual_seed(0)
    ends: list[float] = []
    calls: dict[str, list[float]] = defaultdict(list)
    trainer = Trainer(
        build_method(SETTINGS), data, inputs, SETTINGS.train, 0, "epoch", folder / "checkpoint.pt",
        lambda _row: ends.append(time.process_time()),
    )  # fmt: skip
    torch.set_num_threads(1)
    patches = [
        patch.object(owner, name, timed(getattr(owner, name), calls[part])) for part, (owner, name) in PARTS.items()
    ]
    for each in patches:
        each.start()
    try:
        trainer.fit()
    finally:
        for each in patches:
            each.stop()
    parts = {
        part: median(np.reshape(seconds, (EPOCHS, -1)).sum(axis=1)[1:].tolist()) for part, seconds in calls.items()
    }
    whole = median(np.diff(ends).tolist())
    parts |= {"all else": whole - sum(parts.values()), "an epoch": whole}
    return {part: 1000 * seconds for part, seconds in parts.items()}


def main() -> None:
    """Print a table, then the figures as one JSON object."""
    with tempfile.TemporaryDirectory() as folder:
        parts = measure(Path(folder))
    for part, milliseconds in parts.items():
        print(f"{part:<36} {milliseconds:>8.1f} ms {milliseconds / parts['an epoch']:>6.0%}")
    ratio = parts["an epoch"] / parts["batches and steps"]
    print(json.dumps({"benchmark": "epoch", "figures": {"epoch_ratio": round(ratio, 2)}}))


if __name__ == "__main__":
    main()
