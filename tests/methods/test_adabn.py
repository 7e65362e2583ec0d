"""AdaBN computes the target's statistics, and so removes a shift of scale and offset."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.errors import SettingsError
from oncoshift.methods.factory import build_method
from oncoshift.models.batch_norm import DomainBatchNorm2d
from oncoshift.settings import parse_settings
from oncoshift.training.inputs import FeatureInputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oncoshift.settings import Settings

SEEDS = (0, 1, 2)
SOURCES, TARGETS = 400, 200


class Normed(nn.Module):
    """A trunk of one convolution with BatchNorm: maps [N, 2, h, w] → [N, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 512, 1)
        self.norm = nn.BatchNorm2d(512)

    def run(self, x: Tensor, parts: tuple[str, ...]) -> Tensor:  # noqa: ARG002
        return self.norm(self.conv(x)).relu().mean(dim=(2, 3))


def rescaled(world, seed: int):  # type: ignore[no-untyped-def]
    """Make a world whose channel 0 separates the classes (±1), with a rescaled, shifted target."""
    rng = np.random.default_rng(seed)
    labels = np.arange(SOURCES + TARGETS) % 2
    x = rng.normal(0, 0.5, (len(labels), 2, 4, 4))
    x[:, 0] += (2.0 * labels - 1.0)[:, None, None]
    x[SOURCES:] = 2.5 * x[SOURCES:] + np.array([4.0, -3.0])[:, None, None]
    images, held_out = np.zeros((len(x), 1, 1, 3), np.uint8), np.arange(SOURCES) % 5 == 4

    def source(mask: np.ndarray) -> SourceTiles:
        rows = np.flatnonzero(mask)
        return SourceTiles(images, rows, labels[rows], np.zeros(len(rows), np.int64), ("lung",))

    target = TargetTiles(images, np.arange(SOURCES, len(x)))
    data = TrainingData(source(~held_out), source(held_out), target)
    return world(0)._replace(data=data, inputs=FeatureInputs(x.astype(np.float32)), target_labels=labels[SOURCES:])


@pytest.mark.parametrize("seed", SEEDS)
def test_statistics_of_the_target_recover_what_source_only_loses(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any], seed: int
) -> None:
    tiles, whole = rescaled(world, seed), {"freeze": "none"}
    short = {"epochs": 1, "steps_per_epoch": 60}
    erm, adapted = (
        train(tiles, settings_for(method, seed, model=whole, train=short), trunk=Normed) for method in ("erm", "adabn")
    )
    assert erm.history[-1]["source_accuracy"] > 0.98
    assert erm.target_accuracy < 0.65
    assert adapted.history[-1]["source_accuracy"] > 0.98, "source tiles keep the sources' statistics"
    assert adapted.target_accuracy > 0.95


def test_averaged_weights_are_calibrated_as_well(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any]
) -> None:
    tiles, short = rescaled(world, 0), {"epochs": 1, "steps_per_epoch": 60, "ema": 0.9}
    trained = train(tiles, settings_for("adabn", 0, model={"freeze": "none"}, train=short), trunk=Normed)
    assert trained.target_accuracy > 0.95


def test_training_reads_no_target_tile(settings_for: Callable[..., Settings], build: Callable[..., Any]) -> None:
    method = build(settings_for("adabn", 0, model={"freeze": "none"}), Normed)
    assert not method.needs.target
    assert method.calibrates


@pytest.fixture
def small(settings_for: Callable[..., Settings], build: Callable[..., Any]) -> Any:
    method = build(settings_for("adabn", 0, model={"freeze": "none"}), Normed)
    return method.train(), method.net.classifier.trunk


def test_statistics_are_means_over_batches_weighted_by_their_tiles(small: Any) -> None:
    method, trunk = small
    x = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    before, momentum = deepcopy(trunk.norm), trunk.norm.momentum
    method.calibrate(method.net, iter([x[:3], x[3:]]))
    first, second = trunk.conv(x[:3]), trunk.conv(x[3:])
    mean = (3 * first.mean((0, 2, 3)) + 2 * second.mean((0, 2, 3))) / 5
    var = (3 * first.var((0, 2, 3)) + 2 * second.var((0, 2, 3))) / 5
    torch.testing.assert_close(trunk.norm.running_mean, mean.detach())
    torch.testing.assert_close(trunk.norm.running_var, var.detach())
    assert torch.equal(trunk.norm.source_mean, before.source_mean)
    assert torch.equal(trunk.norm.source_var, before.source_var)
    assert torch.equal(trunk.norm.weight, before.weight)
    assert trunk.norm.momentum == momentum
    assert method.net.training
    assert trunk.norm.training


def test_what_was_there_before_and_a_single_last_tile_do_not_matter(small: Any) -> None:
    method, trunk = small
    x = torch.randn(4, 2, 1, 1, generator=torch.Generator().manual_seed(1))
    trunk.norm.running_mean.fill_(100.0)
    method.calibrate(method.net, iter([x[:3], x[3:]]))
    torch.testing.assert_close(trunk.norm.running_mean, trunk.conv(x[:3]).mean((0, 2, 3)).detach())


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    settings = parse_settings({"model": {"bottleneck": 8, "freeze": "layer3"}, "train": {"method": "adabn"}})
    method = build_method(settings)
    trunk = method.net.classifier.trunk
    replaced = [name for name, module in trunk.named_modules() if isinstance(module, DomainBatchNorm2d)]
    assert replaced
    assert all(name.startswith("layer4") for name in replaced)
    before = deepcopy(trunk.state_dict())
    method.calibrate(method.net, iter([torch.rand(4, 256, 4, 4)]))
    changed = {name for name, value in trunk.state_dict().items() if not torch.equal(value, before[name])}
    counters = {f"{name}.num_batches_tracked" for name in replaced}
    assert changed - counters == {f"{name}.{of}" for name in replaced for of in ("running_mean", "running_var")}


@pytest.mark.parametrize("section", [{"train": {"method": "adabn"}}, {"model": {"batch_norm": "per_domain"}}])
def test_where_no_batch_norm_is_trained_it_is_refused(section: dict[str, Any]) -> None:
    model = {**section.get("model", {}), "freeze": "all"}
    with pytest.raises(SettingsError, match=r"BatchNorm in the trained parts.*model.freeze 'all' none is trained"):
        parse_settings({**section, "model": model})
