"""Training jobs resume to the same bits, run once, and leave frozen parts frozen."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from oncoshift import fingerprint
from oncoshift.errors import TrainingError
from oncoshift.methods.factory import build_method
from oncoshift.training.devices import pick_precision
from oncoshift.training.inputs import PixelInputs
from oncoshift.training.job import find_trained, load_net, predict_job, train_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job


class PulledPlugError(Exception):
    """A simulated kill between two epochs."""


def ignore(row: Mapping[str, float]) -> None:
    """Do nothing, as a hook."""


def plug_after(epochs: int):  # type: ignore[no-untyped-def]
    def hook(row: Mapping[str, float]) -> None:
        if row["epoch"] == epochs - 1:
            raise PulledPlugError

    return hook


def same(first, second) -> bool:  # type: ignore[no-untyped-def]
    a, b = first.state(), second.state()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("method", "optimizer", "precision"), [("dann", "adamw", "32-true"), ("erm", "sgd", "bf16-mixed")]
)
def test_resumed_training_equals_uninterrupted_to_the_bit(
    data: TrainingData, make_job: Callable[..., Job], tmp_path: Path, method: str, optimizer: str, precision: str
) -> None:
    how: dict[str, object] = {"train__method": method, "train__optimizer": optimizer, "train__precision": precision}
    if precision == "bf16-mixed":  # most processors emulate it, tens of times slower
        how |= {"train__steps_per_epoch": 2, "train__batch_size": 4}
    whole = make_job(tmp_path / "whole", **how)
    broken = make_job(tmp_path / "broken", **how)
    assert whole.id == broken.id
    expected = train_job(whole, data, ignore)
    with pytest.raises(PulledPlugError):
        train_job(broken, data, plug_after(2))
    assert find_trained(broken) is None
    torch.manual_seed(12345)  # what happened in between must not matter
    epochs: list[float] = []
    resumed = train_job(broken, data, lambda row: epochs.append(row["epoch"]))
    assert epochs == [0, 1, 2]
    assert same(expected, resumed)
    assert not (resumed.folder / "checkpoint.pt").exists()


def test_a_checkpoint_leaves_out_frozen_parts_and_a_training_goes_on_from_it(
    data: TrainingData, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    how = {"model__freeze": "layer3", "train__ema": 0.9, "train__steps_per_epoch": 2, "train__batch_size": 4}
    expected = train_job(make_job(tmp_path / "whole", **how), data, ignore)
    broken = make_job(tmp_path / "broken", **how)
    with pytest.raises(PulledPlugError):
        train_job(broken, data, plug_after(2))
    kept = torch.load(broken.folder / broken.id / "checkpoint.pt", weights_only=True)
    for state in (kept["method"], kept["average"]):
        parts = {name.partition("trunk.")[2].partition(".")[0] for name in state if "trunk." in name}
        assert parts == {"layer4"}
    assert same(expected, train_job(broken, data, ignore))


def test_a_done_job_is_not_trained_again(data: TrainingData, make_job: Callable[..., Job]) -> None:
    job = make_job()
    first = train_job(job, data, ignore)
    written = first.weights.stat().st_mtime_ns
    again = train_job(job, data, ignore)
    assert again == first
    assert again.weights.stat().st_mtime_ns == written


def test_what_an_earlier_version_trained_counts_as_absent_without_its_weights(
    data: TrainingData, make_job: Callable[..., Job]
) -> None:
    job = make_job()
    trained = train_job(job, data, ignore)
    done = json.loads((trained.folder / "done.json").read_text())
    (trained.folder / "done.json").write_text(json.dumps({"history": done["history"]}))
    assert find_trained(job) is not None
    trained.weights.unlink()
    assert find_trained(job) is None


def test_job_id_follows_what_decides_the_weights(make_job: Callable[..., Job]) -> None:
    base = make_job()
    assert make_job().id == base.id
    assert make_job(train__lr=0.5).id != base.id
    assert make_job(seed=1).id != base.id
    assert make_job(dann__max_lambda=0.5).id != base.id
    assert make_job(gate__min_auroc=0.9).id == base.id, "the gate does not touch the weights"
    assert make_job(sources=["colon", "lung"]).id != base.id
    assert make_job(train__micro_batches=2).id != base.id
    assert make_job(train__precision="32-true").id != base.id
    control = make_job(train__method="erm")
    assert make_job(train__method="erm", dann__max_lambda=0.5).id == control.id, "source-only has no λ"


RUNTIME_CHANGES = {
    "device": "auto", "processes": 2, "threads": 4, "checkpoint_steps": 3, "checkpoint_minutes": None,
    "on_nonfinite": "skip",
}  # fmt: skip


@pytest.mark.parametrize(
    ("library", "changes", "counts"),
    [
        ("timm", {"model__backbone": "timm/test_vit"}, True),
        ("timm", {"model__backbone": "resnet18"}, False),
        ("opencv-python", {"train__method": "anchored", "model__freeze": "all"}, True),
        ("opencv-python", {"train__method": "dann"}, False),
    ],
)
def test_job_id_follows_the_libraries_that_decide_the_weights(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, library: str, changes: dict[str, Any], counts: bool
) -> None:
    before = make_job(**changes).id
    monkeypatch.setattr(fingerprint, "version", lambda name: "0" if name == library else version(name))
    assert (make_job(**changes).id != before) == counts


@pytest.mark.parametrize("name", RUNTIME_CHANGES)
def test_how_a_job_runs_does_not_change_its_id(make_job: Callable[..., Job], name: str) -> None:
    assert make_job(**{f"train__{name}": RUNTIME_CHANGES[name]}).id == make_job().id


def test_a_job_keeps_its_id_and_folder_though_code_changes_while_it_trains(
    data: TrainingData, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(model__freeze="all", train__augment=False, train__epochs=1)

    def change_code(row: Mapping[str, float]) -> None:
        monkeypatch.setattr("oncoshift.training.job.fingerprint_code", lambda _entry: "another")

    trained = train_job(job, data, change_code)
    assert find_trained(job) == trained
    assert sorted(path.name for path in trained.folder.iterdir()) == ["done.json", "job.json", "weights.safetensors"]


def test_what_auto_came_to_is_kept_with_the_result(data: TrainingData, make_job: Callable[..., Job]) -> None:
    job = make_job(model__freeze="all", train__augment=False, train__epochs=1, train__precision="auto")
    trained = train_job(job, data, ignore)
    kept = json.loads((trained.folder / "done.json").read_text())
    assert kept["device"] == "cpu"
    assert kept["precision"] == pick_precision(job.settings.train, torch.device("cpu"))
    assert json.loads((trained.folder / "job.json").read_text())["train"]["precision"] == "auto"


def test_checkpoint_of_another_job_is_refused(data: TrainingData, make_job: Callable[..., Job]) -> None:
    job = make_job()
    with pytest.raises(PulledPlugError):
        train_job(job, data, plug_after(1))
    other = make_job(seed=1)
    (other.folder / other.id).mkdir(parents=True)
    (job.folder / job.id / "checkpoint.pt").rename(other.folder / other.id / "checkpoint.pt")
    with pytest.raises(TrainingError, match="checkpoint of job"):
        train_job(other, data, ignore)


def test_non_finite_loss_names_the_tiles(data: TrainingData, make_job: Callable[..., Job]) -> None:
    tiles = r"pack rows \d+(, \d+){11}"
    with pytest.raises(TrainingError, match=rf"not finite at epoch 0.*; source tiles: {tiles}; target tiles: {tiles}$"):
        train_job(make_job(train__lr=1e30, train__grad_clip=None, train__optimizer="sgd"), data, ignore)


@pytest.mark.parametrize("freeze", ["layer2", "all"])
def test_frozen_parts_are_cached_and_stay_as_they_were(
    data: TrainingData, make_job: Callable[..., Job], freeze: str
) -> None:
    job = make_job(model__freeze=freeze, train__epochs=2)
    trained = train_job(job, data, ignore)
    assert len(list(job.features.glob("*.npy"))) == 1
    torch.manual_seed(job.settings.seed)
    fresh = build_method(job.settings).net.classifier.trunk
    net = load_net(trained)
    for part in net.frozen:
        before, after = getattr(fresh, part).state_dict(), getattr(net.classifier.trunk, part).state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
    rows = data.source_val.rows
    cached = predict_job(trained, data.source.images, rows)
    whole = net.classifier(PixelInputs(data.source.images).batch(rows, torch.device("cpu")))
    live = whole.double().softmax(1)[:, 1].detach().numpy()
    np.testing.assert_allclose(cached, live, atol=2e-3 if freeze == "layer2" else 1e-5)


@pytest.mark.parametrize(("freeze", "threads", "used"), [("all", None, 1), ("all", 2, 2), ("layer3", None, 2)])
def test_heads_alone_train_with_one_thread_unless_the_settings_say_otherwise(
    data: TrainingData, make_job: Callable[..., Job], freeze: str, threads: int | None, used: int
) -> None:
    torch.set_num_threads(2)
    seen: list[int] = []
    small = {"train__epochs": 1, "train__steps_per_epoch": 1, "train__batch_size": 4}
    job = make_job(model__freeze=freeze, train__threads=threads, **small)
    train_job(job, data, lambda _row: seen.append(torch.get_num_threads()))
    assert seen == [used]
    assert torch.get_num_threads() == 2


def test_source_only_learns_the_sources(data: TrainingData, make_job: Callable[..., Job]) -> None:
    history = train_job(make_job(train__method="erm", train__epochs=6, train__steps_per_epoch=10), data, ignore).history
    assert history[-1]["source_accuracy"] > 0.9
    assert history[-1]["label_loss"] < history[0]["label_loss"]
