"""Jobs with LoRA train, go on from a checkpoint, and have ids of their own."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from oncoshift import fingerprint
from oncoshift.errors import SettingsError
from oncoshift.models import lora
from oncoshift.serving.classifier import TileClassifier
from oncoshift.training.job import load_net, predict_job, train_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job

pytest.importorskip("peft", reason="LoRA: pip install peft")

VIT = {"model__backbone": "timm/test_vit", "train__steps_per_epoch": 2, "train__batch_size": 4}
LORA = {**VIT, "model__lora": 2}


class PulledPlugError(Exception):
    """A simulated kill between two epochs."""


def ignore(row: Mapping[str, float]) -> None:
    """Do nothing, as a hook."""


def pull_after_two(row: Mapping[str, float]) -> None:
    if row["epoch"] == 1:
        raise PulledPlugError


@pytest.fixture(scope="module")
def large(data: TrainingData) -> TrainingData:
    """The stripes, with tiles of the size that the trunk takes."""
    images = np.asarray(data.source.images[np.arange(len(data.source.images))]).repeat(5, axis=1).repeat(5, axis=2)
    return replace(
        data,
        source=replace(data.source, images=images),
        source_val=replace(data.source_val, images=images),
        target=replace(data.target, images=images),
    )


@pytest.mark.parametrize(
    "how",
    [
        {"train__method": "dann", "train__optimizer": "adamw", "train__ema": 0.9, "train__precision": "32-true"},
        {"train__method": "erm", "train__precision": "bf16-mixed", "model__freeze": "layer2"},
    ],
    ids=["dann", "erm"],
)
def test_adapters_train_and_resume_to_the_bit_and_the_kept_weights_are_merged(
    large: TrainingData, make_job: Callable[..., Job], tmp_path: Path, how: dict[str, Any]
) -> None:
    whole, broken = (make_job(tmp_path / name, **LORA, **how) for name in ("whole", "broken"))
    expected = train_job(whole, large, ignore)
    with pytest.raises(PulledPlugError):
        train_job(broken, large, pull_after_two)
    kept = torch.load(broken.folder / broken.id / "checkpoint.pt", weights_only=True)["method"]
    assert any(".lora_" in name for name in kept)
    others = {name.partition("trunk.")[2] for name in kept if "trunk." in name and ".lora_" not in name}
    assert others <= {"stem.scale", "stem.shift"}, "a checkpoint leaves out what does not learn"
    torch.manual_seed(12345)  # what happened in between must not matter
    resumed = train_job(broken, large, ignore)
    first, second = expected.state(), resumed.state()
    assert first.keys() == second.keys() == TileClassifier("timm/test_vit", 16, 0.5).state_dict().keys()
    assert all(torch.equal(first[name], second[name]) for name in first)

    torch.manual_seed(whole.seed)
    start = TileClassifier("timm/test_vit", 16, 0.5).state_dict()
    changed = {name for name in first if "trunk" in name and not torch.equal(first[name], start[name])}
    assert {name.rpartition("attn.")[2] for name in changed} == {"qkv.weight", "proj.weight"}
    rows = np.arange(4)
    np.testing.assert_array_equal(
        predict_job(expected, large.source.images, rows), predict_job(resumed, large.source.images, rows)
    )
    assert not any("lora" in name for name in load_net(expected).state_dict())


def test_an_ensemble_of_adapted_networks_is_one_network(large: TrainingData, make_job: Callable[..., Job]) -> None:
    trained = train_job(make_job(**LORA, train__method="ensemble", train__epochs=1), large, ignore)
    assert not any("lora" in name for name in trained.state())
    assert predict_job(trained, large.source.images, np.arange(3)).shape == (3,)


def test_the_id_of_a_job_knows_the_rank_and_peft_where_it_is_used(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, adapted = make_job(**VIT), make_job(**LORA)
    assert len({plain.id, adapted.id, make_job(**LORA | {"model__lora": 3}).id}) == 3
    monkeypatch.setattr(fingerprint, "version", lambda name: "other" if name == "peft" else version(name))
    assert make_job(**VIT).id == plain.id
    assert make_job(**LORA).id != adapted.id


def test_a_job_without_peft_is_told_what_to_install(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(lora, "version", find_none)
    with pytest.raises(SettingsError, match=r"model\.lora 2: needs peft, which is not installed; pip install peft$"):
        _ = make_job(**LORA).id
    assert make_job(**VIT).id
