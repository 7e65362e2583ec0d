"""A model of random weights, small enough to be registered in a second."""

from __future__ import annotations

import numpy as np
import torch

from oncoshift.registry.folder import Package
from oncoshift.serving.classifier import TileClassifier
from oncoshift.serving.config import ServedConfig


def make_package(name: str) -> Package:
    """A package to register under a name; its weights are always the same."""
    torch.manual_seed(0)
    state = TileClassifier("resnet18", 16, 0.5).state_dict()
    config = ServedConfig(name, "kidney", ("lung",), "resnet18", 16, 0.5, tile_size=32)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return Package(config, state, "# card", list(tiles))
