"""Damaged weights, checkpoints, results and features are detected and made again."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support.small_training import Watched, maps, trainer

from oncoshift.files import DamagedFileError, hold_lock
from oncoshift.training import features
from oncoshift.training.checkpoint import load_checkpoint
from oncoshift.training.inputs import FeatureInputs
from oncoshift.training.job import find_trained, load_net, sweep_jobs, train_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job, TrainedJob

QUICK = {"model__freeze": "all", "train__augment": False, "train__epochs": 1, "train__steps_per_epoch": 2}


class PulledPlugError(Exception):
    """A simulated kill."""


class Trap:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def ignore(*_: object) -> None:
    """Do nothing, as a hook."""


def flip(path: Path, share: float = 0.5) -> None:
    """Flip a bit, in the middle or elsewhere."""
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(b"\xff\x00 garbage")


DAMAGES = pytest.mark.parametrize("damage", [flip, cut, empty, garble])


@pytest.fixture
def trained(data: TrainingData, make_job: Callable[..., Job]) -> tuple[Job, TrainedJob, bytes]:
    """A job, its result, and the bytes of its weights."""
    job = make_job(**QUICK)
    done = train_job(job, data, ignore)
    return job, done, done.weights.read_bytes()


@DAMAGES
@pytest.mark.parametrize("file", ["weights.safetensors", "done.json"])
def test_a_damaged_job_is_trained_again_to_the_same_bits(
    data: TrainingData,
    trained: tuple[Job, TrainedJob, bytes],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    file: str,
) -> None:
    job, done, weights = trained
    damage(done.folder / file)
    assert find_trained(job) is None
    again = train_job(job, data, ignore)
    assert f"{file}: damaged" in caplog.text
    assert "the job is trained again" in caplog.text
    assert again.weights.read_bytes() == weights
    assert find_trained(job) == again


def test_weights_that_change_once_the_job_was_found_are_not_used(trained: tuple[Job, TrainedJob, bytes]) -> None:
    _, done, _ = trained
    flip(done.weights)
    with pytest.raises(DamagedFileError, match=r"weights\.safetensors: damaged: expected XXH3 .*start it again"):
        load_net(done)


def test_damage_to_what_only_people_read_stops_nothing(
    data: TrainingData, trained: tuple[Job, TrainedJob, bytes]
) -> None:
    job, done, _ = trained
    empty(done.folder / "job.json")
    assert train_job(job, data, ignore) == done


@DAMAGES
def test_with_a_damaged_checkpoint_the_training_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    def pull(row: dict[str, float]) -> None:
        raise PulledPlugError

    with pytest.raises(PulledPlugError):
        trainer(tmp_path / "run", on_epoch=pull).fit()
    assert load_checkpoint(tmp_path / "run", "job") is not None
    damage(tmp_path / "run")
    batches: list[int] = []
    trainer(tmp_path / "run", inputs=Watched(FeatureInputs(maps()), lambda rows: batches.append(len(rows)))).fit()
    assert f"{tmp_path / 'run'}: damaged: expected XXH3" in caplog.text
    assert "starts from its first step" in caplog.text
    whole: list[int] = []
    trainer(tmp_path / "whole", inputs=Watched(FeatureInputs(maps()), lambda rows: whole.append(len(rows)))).fit()
    assert batches == whole, "all its steps were done again"
    ended = [torch.load(tmp_path / name, weights_only=True)["method"] for name in ("run", "whole")]
    assert all(torch.equal(value, ended[1][name]) for name, value in ended[0].items())


def test_a_pickle_in_the_place_of_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    torch.save({"job": "job", "trap": Trap(tmp_path / "sprung")}, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run", "job") is None
    assert not (tmp_path / "sprung").exists()


@DAMAGES
def test_damaged_features_are_computed_again(
    data: TrainingData,
    make_job: Callable[..., Job],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    job = make_job(**QUICK)
    train_job(job, data, ignore)
    (file,) = job.features.glob("*.npy")
    good = file.read_bytes()
    damage(file)
    train_job(make_job(**QUICK, train__lr=0.5), data, ignore)
    assert f"{file}: damaged: expected XXH3" in caplog.text
    assert "the features are computed again" in caplog.text
    assert file.read_bytes() == good


def test_a_pickle_in_the_place_of_features_does_not_run(
    data: TrainingData, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    job = make_job(**QUICK)
    train_job(job, data, ignore)
    (file,) = job.features.glob("*.npy")
    good = file.read_bytes()
    np.save(file, np.array([Trap(tmp_path / "sprung")], object), allow_pickle=True)
    assert b"mkdir" in file.read_bytes()
    train_job(make_job(**QUICK, train__lr=0.5), data, ignore)
    assert file.read_bytes() == good
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def begun(
    data: TrainingData, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Job, bytes, Path]:
    """A job killed halfway through its features, the bytes of them all, and the partial file."""
    monkeypatch.setattr(features, "_CHUNK", 8)
    whole = make_job(tmp_path / "whole", **QUICK)
    train_job(whole, data, ignore)
    (file,) = whole.features.glob("*.npy")

    def pull(done: int, of: int) -> None:
        if done > 64:
            raise PulledPlugError

    job = make_job(**QUICK)
    with pytest.raises(PulledPlugError):
        train_job(job, data, ignore, pull)
    (partial,) = job.features.glob("*.partial.npy")
    return job, file.read_bytes(), partial


def test_features_go_on_from_where_they_were(data: TrainingData, begun: tuple[Job, bytes, Path]) -> None:
    job, good, partial = begun
    (partial.with_name(f".{partial.stem.split('.')[0]}.progress.1.tmp")).touch()
    computed: list[int] = []
    train_job(job, data, ignore, lambda done, _of: computed.append(done))
    assert computed[0] == 72, "64 of 128 were there"
    (file,) = job.features.glob("*.npy")
    assert file.read_bytes() == good
    assert {path.suffix for path in job.features.iterdir()} == {".npy", ".lock"}


@pytest.mark.parametrize(
    ("which", "damage"), [("partial", flip), ("partial", cut), ("progress", empty), ("progress", garble)]
)
def test_features_that_were_damaged_half_way_start_anew(
    data: TrainingData,
    begun: tuple[Job, bytes, Path],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    which: str,
) -> None:
    job, good, partial = begun
    if which == "progress":
        damage(partial.with_suffix("").with_suffix(".progress"))
    elif damage is flip:
        flip(partial, 0.25)  # within the finished part
    else:
        damage(partial)
    computed: list[int] = []
    train_job(job, data, ignore, lambda done, _of: computed.append(done))
    assert "from the first tile on" in caplog.text
    assert computed[0] == 8
    (file,) = job.features.glob("*.npy")
    assert file.read_bytes() == good


def test_a_job_removes_what_a_killed_process_left_in_its_folder(
    data: TrainingData, make_job: Callable[..., Job]
) -> None:
    job = make_job(**QUICK)
    left = job.folder / job.id / ".checkpoint.pt.4711.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(100))
    train_job(job, data, ignore)
    assert not left.exists()


HOLDS = """
import sys
from pathlib import Path
from oncoshift.files import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_the_sweep_spares_a_job_that_another_process_trains(tmp_path: Path) -> None:
    busy, free = tmp_path / "busy", tmp_path / "free"
    for folder in (busy, free):
        folder.mkdir()
        (folder / ".checkpoint.pt.4711.tmp").touch()
        (folder / "checkpoint.pt").touch()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(busy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    sweep_jobs(tmp_path)
    assert sorted(path.name for path in busy.iterdir()) == [".checkpoint.pt.4711.tmp", "checkpoint.pt"]
    assert [path.name for path in free.iterdir()] == ["checkpoint.pt"]
    holder.communicate("end\n", timeout=60)
    sweep_jobs(tmp_path)
    assert [path.name for path in busy.iterdir()] == ["checkpoint.pt"]
    with hold_lock(busy):
        pass
