"""Tiny classifiers and tiles, so that an explanation takes a fraction of a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from oncoshift.serving.classifier import TileClassifier

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture
def classifier() -> TileClassifier:
    """A random ResNet18 whose BatchNorm has seen no data, in train mode as after training."""
    torch.manual_seed(0)
    return TileClassifier("resnet18", bottleneck=8, dropout=0.5).train()


@pytest.fixture
def tiles() -> NDArray[np.uint8]:
    """Pink tiles with one dark blue disc each, uint8 [5, 32, 32, 3]."""
    rng = np.random.default_rng(0)
    images = np.empty((5, 32, 32, 3))
    images[:] = (235, 190, 215)
    rows, columns = np.mgrid[:32, :32]
    for number, image in enumerate(images):
        image[(rows - 8 - 4 * number) ** 2 + (columns - 16) ** 2 < 25] = (90, 60, 140)
    return np.clip(images + rng.normal(0, 4, images.shape), 0, 255).astype(np.uint8)
