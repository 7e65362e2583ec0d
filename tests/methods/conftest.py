"""A synthetic shift on features, and a training on it, that take a fraction of a second."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import torch
from support.given_trunk import Given
from torch import nn

from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.methods.factory import wrap_network
from oncoshift.methods.registry import METHODS
from oncoshift.models.batch_norm import replace_batch_norm
from oncoshift.models.network import AdaptationNet
from oncoshift.settings import parse_settings
from oncoshift.training.inputs import FeatureInputs
from oncoshift.training.loop import Trainer
from oncoshift.training.prediction import predict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.methods.base import Method
    from oncoshift.models.network import TrainedNet
    from oncoshift.settings import ModelSettings, Settings
    from oncoshift.training.inputs import Inputs

WIDTH = 512
"""Width of ResNet18's pooled feature."""


class World(NamedTuple):
    """Source organs and a target.

    Attributes:
        data: What training may see.
        inputs: Inputs of the network, mostly features.
        target_labels: Labels of the target, for measuring only, int64 [T].
    """

    data: TrainingData
    inputs: Inputs
    target_labels: NDArray[np.int64]


def shifted(seed: int, shortcut_on_target: float = 0.8, malignant_share: float = 0.5) -> World:
    """Make a world whose sources have a shortcut that the target lacks.

    Feature 0 separates the classes everywhere (±1); feature 1 is a stronger shortcut on the sources
    (±2). On the target the shortcut is `shortcut_on_target` for every tile, which misleads
    source-only.
    """
    rng = np.random.default_rng(seed)
    source_tiles, target_tiles = 600, 300
    labels = np.arange(source_tiles) % 2
    organs = np.repeat([0, 1], source_tiles // 2)
    target_labels = (np.arange(target_tiles) < malignant_share * target_tiles).astype(np.int64)
    sign = 2.0 * np.concatenate([labels, target_labels]) - 1.0
    x = rng.normal(0, 0.05, (len(sign), WIDTH))
    x[:, 0] = sign + rng.normal(0, 0.3, len(sign))
    x[:, 1] = np.where(np.arange(len(sign)) < source_tiles, 2 * sign, shortcut_on_target) + rng.normal(
        0, 0.3, len(sign)
    )
    images = np.zeros((len(x), 1, 1, 3), np.uint8)
    held_out = np.arange(source_tiles) % 5 == 4

    def source(mask: NDArray[np.bool_]) -> SourceTiles:
        return SourceTiles(images, np.flatnonzero(mask), labels[mask], organs[mask], ("lung", "colon"))

    target = TargetTiles(images, np.arange(source_tiles, len(x)))
    # Roughly right, as morphology is.
    anchor = 0.5 * sign + np.random.default_rng([seed, 1]).normal(0, 1, len(sign))
    data = TrainingData(source(~held_out), source(held_out), target, anchor=anchor)
    return World(data, FeatureInputs(x.astype(np.float32)), target_labels)


@cache
def _template(settings: ModelSettings) -> AdaptationNet:
    net = AdaptationNet(settings)
    net.classifier.trunk = Given()  # type: ignore[assignment]  # stands for it
    net.frozen = ()
    return net


def small_method(settings: Settings, trunk: Callable[[], nn.Module] = Given) -> Method:
    """Build the method around a network with a small trunk or none, with seeded weights."""
    net = deepcopy(_template(settings.model))
    torch.manual_seed(settings.seed)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    net.classifier.trunk = trunk()  # type: ignore[assignment]
    if METHODS[settings.train.method].per_domain or settings.model.batch_norm == "per_domain":
        replace_batch_norm(net.classifier.trunk, per_domain=True)
        net.per_domain = True
    return wrap_network(net, settings)


def method_settings_for(method: str, seed: int, **changes: dict[str, object]) -> Settings:
    """Make settings of a small head on given features; keyword arguments are sections."""
    train = {
        "method": method,
        "epochs": 2,
        "steps_per_epoch": 100,
        "augment": False,
        "device": "cpu",
        "precision": "32-true",
        **changes.pop("train", {}),
    }
    model = {"bottleneck": 32, "freeze": "all", "dropout": 0.0, **changes.pop("model", {})}
    return parse_settings({"sources": ["lung", "colon"], "seed": seed, "model": model, "train": train, **changes})


class Trained(NamedTuple):
    """A trained method, one row of figures for each epoch, and balanced accuracy on the target."""

    method: Method
    history: list[dict[str, float]]
    target_accuracy: float


def balanced_accuracy(net: TrainedNet, world: World) -> float:
    """Compute the balanced accuracy of a network on the world's target."""
    predicted = predict(net, world.inputs, world.data.target.rows, torch.device("cpu")) > 0.5
    truth = world.target_labels == 1
    return float(predicted[truth].mean() + (~predicted[~truth]).mean()) / 2


@pytest.fixture(scope="session")
def accuracy() -> Callable[[TrainedNet, World], float]:
    """The function `balanced_accuracy`."""
    return balanced_accuracy


@pytest.fixture(scope="session")
def world() -> Callable[..., World]:
    """The function `shifted`, which makes a world from a seed."""
    return shifted


@pytest.fixture
def settings_for() -> Callable[..., Settings]:
    """The function `method_settings_for`, which makes a method's settings."""
    return method_settings_for


@pytest.fixture
def build() -> Callable[..., Method]:
    """The function `small_method`, which builds a method around a small network."""
    return small_method


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Trained]:
    """A function that trains a method on a world in the project's own loop, and may resume."""

    def run(
        world: World,
        settings: Settings,
        checkpoint: str | None = None,
        on_epoch: Callable[[dict[str, float]], None] = lambda row: None,  # noqa: ARG005
        trunk: Callable[[], nn.Module] = Given,
    ) -> Trained:
        torch.set_num_threads(1)
        method = small_method(settings, trunk)
        path = tmp_path / (checkpoint or f"{settings.train.method}-{settings.seed}-{len(list(tmp_path.iterdir()))}")
        trainer = Trainer(method, world.data, world.inputs, settings.train, settings.seed, "job", path, on_epoch)
        history = trainer.fit()
        return Trained(method, history, balanced_accuracy(method.net, world))

    return run
