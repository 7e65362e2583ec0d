"""torch.compile makes one graph of the training steps, and everything else runs uncompiled."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support.tiny_settings import TINY_TRUNK
from torch._dynamo.testing import CompileCounter

from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.methods.factory import build_method
from oncoshift.models import network
from oncoshift.settings import parse_settings
from oncoshift.training.inputs import FeatureInputs, PixelInputs
from oncoshift.training.loop import Trainer
from oncoshift.training.validation import validate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oncoshift.training.inputs import Inputs

TRAIN = {
    "epochs": 2,
    "steps_per_epoch": 3,
    "batch_size": 4,
    "device": "cpu",
    "precision": "bf16-mixed",
    "compile": True,
}
CASES: dict[str, dict[str, dict[str, object]]] = {
    "a ResNet": {"model": {"backbone": "resnet18"}},
    "domains": {"model": {"backbone": "resnet18", "batch_norm": "per_domain"}},
    "AdaBN": {"model": {"backbone": "resnet18"}, "train": {"method": "adabn"}},
    "strong views": {"model": {"backbone": "resnet18"}, "train": {"method": "self_training"}},
    "parts, averaged": {"model": {"backbone": "resnet18"}, "train": {"micro_batches": 2, "ema": 0.9}},
    "skipping": {"model": {"backbone": "resnet18"}, "train": {"on_nonfinite": "skip", "optimizer": "adamw"}},
    "half frozen": {"model": {"backbone": "resnet18", "freeze": "layer2"}},
    "LoRA": {"model": {"backbone": "timm/test_vit", "lora": 2}},
}


def make_trainer(folder: Path, changes: dict[str, dict[str, object]]) -> Trainer:
    """Make a training of DANN, or another method, on 40 source and 10 target tiles of noise."""
    model = {"bottleneck": 8, "dropout": 0.0, **changes["model"]}
    train = {"method": "dann", **TRAIN, **changes.get("train", {})}
    settings = parse_settings({"sources": ["lung", "colon"], "model": model, "train": train})
    side = 160 if str(model["backbone"]) == "timm/test_vit" else 32
    rng, rows = np.random.default_rng(0), np.arange(40)
    images = rng.integers(0, 256, (50, side, side, 3), np.uint8)

    def source(part: np.ndarray) -> SourceTiles:
        return SourceTiles(images, part, part % 2, part // 2 % 2, ("lung", "colon"))

    data = TrainingData(source(rows[:30]), source(rows[30:]), TargetTiles(images, np.arange(40, 50)))
    inputs: Inputs = PixelInputs(images)
    if "freeze" in model:
        inputs = FeatureInputs(rng.normal(size=(50, 128, 4, 4)).astype(np.float32))
    torch.manual_seed(0)
    return Trainer(
        build_method(settings), data, inputs, settings.train, 0, "job", folder / "checkpoint", lambda _row: None
    )


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Counts the graphs that are compiled; each is run as it is, for want of a compiler."""
    torch.compiler.reset()
    network._compile_run.cache_clear()
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    yield counter
    network._compile_run.cache_clear()
    torch.compiler.reset()


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_steps_of_training_are_one_graph_and_validation_is_none(
    changes: dict[str, dict[str, object]], graphs: CompileCounter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []

    def count(*parts: Any) -> dict[str, float]:
        before = graphs.frame_count
        figures = validate(*parts)
        counts.append((before, graphs.frame_count))
        return figures

    monkeypatch.setattr("oncoshift.training.loop.validate", count)
    make_trainer(tmp_path, changes).fit()
    assert counts == [(1, 1), (1, 1)]


def test_more_trainings_than_torch_keeps_graphs_by_itself_are_compiled(graphs: CompileCounter, tmp_path: Path) -> None:
    sizes = range(4, 14)
    assert len(sizes) > 8
    for size in sizes:
        train: dict[str, object] = {"batch_size": size, "epochs": 1, "steps_per_epoch": 1}
        make_trainer(tmp_path / str(size), {"model": {"backbone": TINY_TRUNK}, "train": train}).fit()
    assert graphs.frame_count == len(sizes)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler on the CPU")
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_compiled_it_trains_the_same_and_names_weights_the_same(processes: int, tmp_path: Path) -> None:
    plain, compiled = (
        make_trainer(
            tmp_path / f"{wanted}",
            {
                "model": {"backbone": TINY_TRUNK},
                "train": {"compile": wanted, "processes": processes, "precision": "32-true", "lr": 1e-3},
            },
        )
        for wanted in (False, True)
    )
    for row, other in zip(plain.fit(), compiled.fit(), strict=True):
        for name in ("label_loss", "domain_loss", "gradient_norm", "feature_norm"):
            assert other[name] == pytest.approx(row[name], rel=1e-3), name
    expected, found = plain.method.state_dict(), compiled.method.state_dict()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-3)
