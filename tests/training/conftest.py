"""A tiny labelled source and unlabelled target: stripes on a background that shows the domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.tiny_settings import TINY_TRUNK

from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.settings import Settings, parse_settings
from oncoshift.training.job import Job

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 32

FIGURES = ("label_loss", "domain_loss", "gradient_norm", "source_accuracy", "information_maximisation")
"""Figures of an epoch by which trainings with several processes and with one are compared."""


def stripes(count: int, tint: tuple[int, int, int], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw tiles, uint8 [N, S, S, 3], and labels [N].

    Stripes of any direction and phase are thin for label 0 and thick for label 1.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    tiles = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for i, label in enumerate(labels):
        angle, phase = rng.uniform(0, np.pi, 2)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (1.6 if label == 0 else 0.6) + phase)
        tiles[i] = np.clip(np.array(tint) + 40 * wave[..., None] + rng.normal(0, 6, (SIDE, SIDE, 3)), 0, 255)
    return tiles, labels.astype(np.int64)


def draw_data() -> TrainingData:
    """Draw source and target tiles, and divide the source tiles into training and validation."""
    first, first_labels = stripes(48, (180, 120, 160), 0)
    second, second_labels = stripes(48, (150, 150, 190), 1)
    target, _ = stripes(32, (120, 60, 60), 2)
    images = np.concatenate([first, second, target])
    labels = np.concatenate([first_labels, second_labels])
    organs = np.repeat([0, 1], 48)
    held_out = np.arange(96) // 2 % 4 == 3

    def source(mask: NDArray[np.bool_]) -> SourceTiles:
        return SourceTiles(images, np.flatnonzero(mask), labels[mask], organs[mask], ("lung", "colon"))

    return TrainingData(source(~held_out), source(held_out), TargetTiles(images, np.arange(96, 128)))


def make_stripes_job(folder: Path, **changes: object) -> Job:
    """Make a job on the stripes; keywords are dotted settings with `__`."""
    values: dict[str, dict[str, object]] = {
        "model": {"backbone": TINY_TRUNK, "bottleneck": 16},
        "train": {"epochs": 3, "steps_per_epoch": 4, "batch_size": 12, "threads": 1, "device": "cpu"},
    }
    top: dict[str, object] = {"sources": ["lung", "colon"]}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            values.setdefault(section, {})[name] = value
        else:
            top[section] = value
    settings: Settings = parse_settings({**values, **top})
    return Job(settings, "data", "pack", folder / "jobs", folder / "features")


@pytest.fixture(scope="session")
def data() -> TrainingData:
    return draw_data()


@pytest.fixture
def make_job(tmp_path: Path):  # type: ignore[no-untyped-def]
    """The function `make_stripes_job`, with a folder of the test as its default."""

    def make(folder: Path = tmp_path, **changes: object) -> Job:
        return make_stripes_job(folder, **changes)

    return make
