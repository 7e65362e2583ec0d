"""A small model with random weights, also saved as an MLflow model folder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support.tiny_tiles import tissue

from oncoshift.registry.artifacts import TrainingTiles
from oncoshift.registry.folder import Package, save_folder
from oncoshift.serving.classifier import TileClassifier
from oncoshift.serving.config import ServedConfig
from oncoshift.serving.stain import LabStatistics, StainReference

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

REFERENCE = StainReference("reinhard", LabStatistics((70.0, 15.0, -10.0), (12.0, 6.0, 5.0)))


@pytest.fixture(scope="session")
def tiles() -> NDArray[np.uint8]:
    """Seven tiles [7, 40, 40, 3], larger than the model's own size."""
    return np.random.default_rng(0).integers(0, 256, (7, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def classifier() -> TileClassifier:
    """A classifier whose probabilities differ between tiles."""
    torch.manual_seed(0)
    model = TileClassifier("resnet18", 16, 0.5)
    with torch.no_grad():
        model.head.weight.mul_(20)
    return model.eval()


@pytest.fixture(scope="session")
def package(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> Package:
    config = ServedConfig("oncoshift-kidney", "kidney", ("lung", "colon"), "resnet18", 16, 0.5, tile_size=32)
    groups = np.array([f"patient {number // 2}" for number in range(20)])
    organs = np.array(["lung", "kidney"])[np.arange(20) // 10]
    training = TrainingTiles(np.stack([tissue(seed) for seed in range(20)]), organs, groups)
    return Package(config, classifier.state_dict(), "# card", list(tiles[:2]), training)


@pytest.fixture(scope="session")
def model_folder(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_folder(package, folder)
    return folder


@pytest.fixture(scope="session")
def model_artifacts(model_folder: Path) -> Path:
    """The files of the saved model, without MLflow's."""
    return model_folder / "artifacts"


@pytest.fixture(scope="session")
def reinhard_package(package: Package) -> Package:
    return replace(package, config=replace(package.config, variant="reinhard", reference=REFERENCE))
