"""Frozen parts are kept once, whichever trainings have them, and are never lost or mixed up."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from oncoshift.files import DamagedFileError
from oncoshift.training.frozen_weights import join_frozen, keep_frozen, locate_frozen, read_frozen, split_frozen
from oncoshift.training.job import find_trained, predict_job, read_trained, train_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job

FROZEN = {"model__freeze": "all", "train__augment": False, "train__epochs": 1, "train__steps_per_epoch": 2}


def ignore(*_: object) -> None:
    """Do nothing, as a hook."""


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


ONE = {"trunk.stem.weight": torch.arange(4.0), "trunk.layer4.weight": torch.ones(2), "head.bias": torch.zeros(1)}


@pytest.mark.parametrize(("freeze", "names"), [("all", 2), ("stem", 1), ("layer3", 1), ("none", 0)])
def test_what_was_split_is_joined_again(freeze: str, names: int) -> None:
    trained, frozen = split_frozen(ONE, freeze)
    assert len(frozen) == names
    assert same(join_frozen(trained, frozen), ONE)


def test_an_ensembles_members_share_their_frozen_parts_but_for_what_differs() -> None:
    other = {**ONE, "trunk.layer4.weight": torch.zeros(2)}
    state = {
        f"members.{number}.{name}": tensor for number, one in enumerate((ONE, other)) for name, tensor in one.items()
    }
    trained, frozen = split_frozen(state, "all")
    assert same(frozen, {name: tensor for name, tensor in ONE.items() if name.startswith("trunk.")})
    assert set(trained) == {"members.0.head.bias", "members.1.head.bias", "members.1.trunk.layer4.weight"}
    assert same(join_frozen(trained, frozen), state)


def test_tensors_are_kept_by_their_content(tmp_path: Path) -> None:
    _, frozen = split_frozen(ONE, "all")
    name = keep_frozen(frozen, tmp_path)
    assert keep_frozen({key: frozen[key].clone() for key in reversed(frozen)}, tmp_path) == name
    assert keep_frozen({**frozen, "trunk.stem.weight": torch.arange(4.0) + 1}, tmp_path) != name
    assert same(read_frozen(tmp_path, name), frozen)
    shutil.copy(locate_frozen(tmp_path, name), locate_frozen(tmp_path, "0" * 32))
    with pytest.raises(DamagedFileError, match="not those that were kept"):
        read_frozen(tmp_path, "0" * 32)


def test_trainings_on_one_trunk_keep_it_once(data: TrainingData, make_job: Callable[..., Job], tmp_path: Path) -> None:
    settings = {**FROZEN, "model__weights": "none"}
    first = train_job(make_job(**settings), data, ignore)
    again = train_job(make_job(**settings, train__lr=0.5), data, ignore)
    assert first.frozen == again.frozen
    assert [path.stem for path in (tmp_path / "trunks").iterdir()] == [first.frozen]
    assert not any(name.startswith("trunk.") for name in load_file(first.weights))
    assert any(name.startswith("trunk.") for name in first.state())


def test_a_network_is_the_same_as_if_all_were_in_one_file(
    data: TrainingData, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    trained = train_job(make_job(**FROZEN), data, ignore)
    rows = np.arange(4)
    expected = predict_job(trained, data.source.images, rows)
    (tmp_path / "out").mkdir()
    trained.export(tmp_path / "out")
    shutil.rmtree(tmp_path / "trunks")
    exported = read_trained(trained.job, tmp_path / "out")
    assert exported.frozen is None
    assert same(exported.state(), load_file(tmp_path / "out" / "weights.safetensors"))
    assert np.array_equal(predict_job(exported, data.source.images, rows), expected)


@pytest.mark.parametrize("damage", ["gone", "garbled", "flipped"])
def test_a_trunk_that_is_lost_or_damaged_is_made_again_to_the_same_bits(
    data: TrainingData, make_job: Callable[..., Job], damage: str
) -> None:
    job = make_job(**FROZEN)
    trained = train_job(job, data, ignore)
    assert trained.frozen is not None
    path = locate_frozen(job.trunks, trained.frozen)
    # Clones: what is loaded is mapped from the file.
    before = {name: tensor.clone() for name, tensor in trained.state().items()}
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"garbage" if damage == "garbled" else content[:-1] + bytes([content[-1] ^ 1]))
    assert find_trained(job) is None
    again = train_job(job, data, ignore)
    assert path.read_bytes() == content
    assert same(again.state(), before)
