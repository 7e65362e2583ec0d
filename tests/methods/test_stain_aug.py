"""Stain augmentation prevents a shortcut by stain strength that the target lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.errors import SettingsError
from oncoshift.settings import parse_settings
from oncoshift.training.augment import EOSIN, HAEMATOXYLIN
from oncoshift.training.inputs import PixelInputs
from oncoshift.training.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oncoshift.settings import Settings

SEEDS = (0, 1, 2)
SIDE, SOURCES, TARGETS = 16, 240, 120


class Edges(nn.Module):
    """A trunk of one convolution, wide enough for stripes: tiles [N, 3, S, S] → [N, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 512, 1), nn.ReLU()
        )

    def run(self, x: Tensor, parts: tuple[str, ...]) -> Tensor:  # noqa: ARG002
        return self.layers(x).mean(dim=(2, 3))


def striped(count: int, strengths: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Draw haematoxylin stripes on eosin, uint8 [N, S, S, 3]: thin in even, thick in odd tiles."""
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    tiles = []
    for number in range(count):
        angle, phase = rng.uniform(0, np.pi, 2)
        wave = np.sin((1.9, 0.8)[number % 2] * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        nuclei = strengths[number % 2] * (0.7 + 0.5 * wave) + rng.normal(0, 0.08, (SIDE, SIDE))
        density = nuclei[..., None] * np.array(HAEMATOXYLIN) + 0.3 * np.array(EOSIN)
        tiles.append(np.clip(255 * np.exp(-density), 0, 255))
    return np.array(tiles).round().astype(np.uint8)


def stained(world, seed: int):  # type: ignore[no-untyped-def]
    """Make a world where only malignant source tiles stain strongly, but all target tiles do."""
    rng = np.random.default_rng(seed)
    images = np.concatenate([striped(SOURCES, (0.7, 1.1), rng), striped(TARGETS, (1.2, 1.2), rng)])
    labels, held_out = np.arange(len(images)) % 2, np.arange(SOURCES) % 5 == 4

    def source(mask: np.ndarray) -> SourceTiles:
        rows = np.flatnonzero(mask)
        return SourceTiles(images, rows, labels[rows], np.zeros(len(rows), np.int64), ("lung",))

    data = TrainingData(source(~held_out), source(held_out), TargetTiles(images, np.arange(SOURCES, len(images))))
    return world(0)._replace(data=data, inputs=PixelInputs(images), target_labels=labels[SOURCES:])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_strength_of_a_stain_is_not_learnt(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any], seed: int
) -> None:
    tiles, long = stained(world, seed), {"epochs": 1, "steps_per_epoch": 60, "optimizer": "adamw", "lr": 3e-3}
    erm, augmented = (
        train(
            tiles,
            settings_for(method, seed, model={"freeze": "none"}, train=long, stain_aug={"jitter": 0.5}),
            trunk=Edges,
        )
        for method in ("erm", "stain_aug")
    )
    assert erm.history[-1]["source_accuracy"] > 0.95
    assert erm.target_accuracy < 0.65
    assert augmented.target_accuracy > 0.9


def source_batches(world, settings, needs):  # type: ignore[no-untyped-def]
    loader = Loader(world.data, world.inputs, settings.train, settings.seed, torch.device("cpu"), needs)
    return next(loader.epoch(0)).source


def test_the_larger_of_both_jitters_counts(
    world: Callable[..., Any], settings_for: Callable[..., Settings], build: Callable[..., Any]
) -> None:
    tiles, whole = stained(world, 0), {"freeze": "none"}

    def batch(method: str, jitter: float, **changes: object) -> Tensor:
        settings = settings_for(method, 0, model=whole, train={"stain_jitter": jitter, "batch_size": 8}, **changes)
        return source_batches(tiles, settings, build(settings, Edges).needs)

    by_train = batch("erm", 0.4)
    assert torch.equal(batch("stain_aug", 0.0, stain_aug={"jitter": 0.4}), by_train)
    assert torch.equal(batch("stain_aug", 0.4, stain_aug={"jitter": 0.1}), by_train)
    assert not torch.equal(batch("erm", 0.0), by_train)


@pytest.mark.parametrize("section", [{"train": {"method": "stain_aug"}}, {"retrain": {"control": "stain_aug"}}])
def test_behind_a_frozen_part_it_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"stain_aug changes tiles, and with model\.freeze 'stem'"):
        parse_settings({"model": {"freeze": "stem"}, **section})
