"""A registered champion with random weights, whose training tiles are made-up tissue."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from support.tiny_tiles import tissue

from oncoshift.registry.artifacts import TrainingTiles
from oncoshift.registry.folder import Package
from oncoshift.registry.packaging import log_and_register
from oncoshift.registry.tracking import Tracker
from oncoshift.serving.classifier import TileClassifier
from oncoshift.serving.config import ServedConfig
from oncoshift.serving.tissue import TissueLimits, measure

if TYPE_CHECKING:
    from pathlib import Path

NAME = "oncoshift-kidney"
LIMITS = TissueLimits(16, 0.05, 0.0025, 0.02, 0.3, 0.05)


class Store(NamedTuple):
    """An MLflow store with a champion.

    Attributes:
        tracker: Of the retrainings' experiment.
        folder: Of the store.
    """

    tracker: Tracker
    folder: Path


@pytest.fixture(scope="session")
def package() -> Package:
    torch.manual_seed(0)
    config = ServedConfig(NAME, "kidney", ("lung",), "resnet18", 16, 0.5, tile_size=32, limits=LIMITS)
    tiles = np.stack([tissue(seed) for seed in range(120)])
    organs = np.repeat(["lung", "kidney"], 60)
    groups = np.array([f"{organ} {number // 2}" for number, organ in enumerate(organs)])
    training = TrainingTiles(tiles, organs, groups, pd.DataFrame([asdict(measure(tile)) for tile in tiles]))
    return Package(config, TileClassifier("resnet18", 16, 0.5).state_dict(), "# card", list(tiles[:2]), training)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, package: Package) -> Store:
    folder = tmp_path_factory.mktemp("watched")
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db", "oncoshift")
    run = tracker.find_or_start_run("retrain-1", "a retraining")
    seed = tracker.find_or_start_run("retrain-1/train-dann-s0", "dann · seed 0", parent=run)
    ends = {"": 0.8, "_low": 0.7, "_high": 0.9}
    tracker.log_metrics(seed, [(0, 1, {f"target/balanced_accuracy{end}": value for end, value in ends.items()})])
    tags = {"oncoshift.verdict": "trust", "oncoshift.retraining": run, "method": "dann", "seed": "0"}
    version = log_and_register(tracker, run, "job", package, tags)
    tracker.client.set_registered_model_alias(NAME, "champion", str(version.version))
    return Store(tracker, folder)
