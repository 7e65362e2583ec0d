"""The model and the tiles of the benchmarks of serving: random weights, made-up tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from oncoshift.registry.artifacts import TrainingTiles
from oncoshift.registry.folder import Package, save_folder
from oncoshift.serving.classifier import build_classifier
from oncoshift.serving.config import ServedConfig
from oncoshift.serving.tissue import TissueLimits

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_LIMITS = TissueLimits(32, 0.05, 0.0, 0.02, 0.5, 0.05)
_COLOURS = np.array([[200, 120, 170], [110, 60, 140], [245, 240, 245]])


def make_tiles(count: int, side: int) -> NDArray[np.uint8]:
    """Make tiles of pink, violet and white spots, uint8 [count, side, side, 3]."""
    rng = np.random.default_rng(0)
    spots = _COLOURS[rng.integers(0, 3, (count, side // 4, side // 4))].repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(spots + rng.normal(0, 8, spots.shape), 0, 255).astype(np.uint8)


def save_model(folder: Path, tiles: NDArray[np.uint8], backbone: str) -> None:
    """Save a model with random weights as a registered model is.

    Args:
        folder: of the model.
        tiles: its training tiles, uint8 [N, S, S, 3].
        backbone: resnet18 or resnet50.
    """
    torch.manual_seed(0)
    config = ServedConfig("oncoshift-bench", "kidney", ("lung",), backbone, 256, 0.5, tiles.shape[1], limits=_LIMITS)
    names = np.array([str(number) for number in range(len(tiles))])
    training = TrainingTiles(tiles, np.repeat("kidney", len(tiles)), names)
    state = build_classifier(backbone, 256, 0.5).state_dict()
    save_folder(Package(config, state, "", list(tiles[:2]), training), folder)
