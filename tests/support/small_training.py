"""A small network with BatchNorm and dropout on synthetic maps, and a training of milliseconds.

As a program, `small_training.py CHECKPOINT` waits for a line at one batch, and trains to the end
unless SIGTERM comes.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.errors import TrainingInterrupted
from oncoshift.methods.alignment import Alignment, Setup
from oncoshift.methods.dann import Dann
from oncoshift.methods.erm import Erm
from oncoshift.settings import TrainSettings
from oncoshift.settings.methods import DannSettings
from oncoshift.training.inputs import FeatureInputs
from oncoshift.training.loop import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from oncoshift.methods.base import Method
    from oncoshift.training.inputs import Inputs

TILES, SOURCES = 60, 40
EPOCHS = 2
DEFAULTS = {"epochs": EPOCHS, "steps_per_epoch": 5, "batch_size": 8, "device": "cpu", "precision": "32-true"}


class SmallNet(nn.Module):
    """Maps [N, 2, 4, 4] → features [N, 8] → logits [N, 2].

    It has all that the loop uses of an `AdaptationNet`.
    """

    width = 8
    sees_tiles = False
    frozen_names = ()

    def __init__(self, norm: bool = True, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.bottleneck = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(8, 2)

    def features(self, x: Tensor, sources: int = 0) -> Tensor:  # noqa: ARG002
        z: Tensor = self.bottleneck(self.norm(self.conv(x)).relu().mean((2, 3)))
        return z

    def logits(self, z: Tensor) -> Tensor:
        logits: Tensor = self.head(z)
        return logits


def maps(broken: tuple[int, ...] = ()) -> NDArray[np.float32]:
    """Make a map for each tile, float32 [60, 2, 4, 4]; the rows `broken` contain an infinity."""
    values = np.random.default_rng(0).normal(0, 1, (TILES, 2, 4, 4)).astype(np.float32)
    values[:, 0] += (np.arange(TILES) % 2)[:, None, None]
    values[SOURCES:] += 0.5
    for row in broken:
        values[row, 0, 0, 0] = np.inf
    return values


def small_data() -> TrainingData:
    """Make training data: rows 0–39 are source tiles, a fifth for validation, 40–59 target."""
    rows = np.arange(SOURCES)
    images = np.zeros((TILES, 4, 4, 3), np.uint8)

    def source(mask: NDArray[np.bool_]) -> SourceTiles:
        return SourceTiles(images, rows[mask], rows[mask] % 2, rows[mask] // 2 % 2, ("lung", "colon"))

    target = TargetTiles(images, np.arange(SOURCES, TILES))
    names = np.array([f"tile-{row}" for row in range(TILES)], object)
    return TrainingData(source(rows % 5 != 4), source(rows % 5 == 4), target, names)


def small_method(name: str = "dann", seed: int = 0, norm: bool = True, dropout: float = 0.5) -> Method:
    """Build `erm` or `dann` around a `SmallNet`."""
    torch.manual_seed(seed)
    net: Any = SmallNet(norm, dropout)  # stands for an `AdaptationNet`
    setup = Setup(width=8, organs=1, epochs=EPOCHS)
    return Erm(net) if name == "erm" else Alignment(net, {"dann": Dann(setup, DannSettings())})


def ignore(row: dict[str, float]) -> None:
    """Do nothing, as a hook."""


@dataclass(frozen=True)
class Watched:
    """Inputs that report each batch before they return it.

    Attributes:
        inputs: The inputs themselves.
        tell: Function called with the rows of each batch.
    """

    inputs: Inputs
    tell: Callable[[NDArray[np.int64]], None]

    def batch(
        self, rows: NDArray[np.int64], device: torch.device, view: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        self.tell(rows)
        return self.inputs.batch(rows, device, view)


def trainer(
    checkpoint: Path,
    method: Method | None = None,
    inputs: Inputs | None = None,
    on_epoch: Callable[[dict[str, float]], None] = ignore,
    **train: object,
) -> Trainer:
    """Make the loop on the small data; keyword arguments are settings of section `train`."""
    settings = TrainSettings.model_validate({**DEFAULTS, **train})
    made = small_method() if method is None else method
    given = FeatureInputs(maps()) if inputs is None else inputs
    return Trainer(made, small_data(), given, settings, 3, "job", checkpoint, on_epoch)


def main(checkpoint: str) -> int:
    """Train; at the 25th batch of inputs print a line, and wait for one on stdin."""
    batches = itertools.count(1)

    def tell(rows: NDArray[np.int64]) -> None:
        if next(batches) == 25:
            print(f"{len(rows)} tiles", flush=True)
            sys.stdin.readline()

    try:
        trainer(Path(checkpoint), inputs=Watched(FeatureInputs(maps()), tell), steps_per_epoch=20, ema=0.9).fit()
    except TrainingInterrupted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1]))
