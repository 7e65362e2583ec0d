"""A method in closed form is a job as others are: found again, and the same to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from oncoshift.errors import TrainingError
from oncoshift.training.job import predict_job, train_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job

ANCHORED = {"train__method": "anchored", "model__freeze": "all", "train__augment": False}


def ignore(row: Mapping[str, float]) -> None:
    """Do nothing, as a hook."""


def test_a_job_is_one_epoch_that_is_found_again(
    data: TrainingData, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    rows: list[Mapping[str, float]] = []
    first, again = (make_job(tmp_path / name, **ANCHORED) for name in ("first", "again"))
    trained = train_job(first, data, rows.append)
    assert len(trained.history) == len(rows) == 1
    assert {"source_accuracy", "nuclei", "estimated_malignant_share", "information_maximisation"} <= rows[0].keys()
    train_job(first, data, rows.append)
    assert rows[0] == rows[1], "times of day and all: it was not trained again"
    one, other = trained.state(), train_job(again, data, ignore).state()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_served_network_says_what_validation_saw(data: TrainingData, make_job: Callable[..., Job]) -> None:
    trained = train_job(make_job(**ANCHORED), data, ignore)
    said = predict_job(trained, data.target.images, data.target.rows)
    assert np.mean(said > 0.5) == trained.last["target_malignant_share"]


def test_a_trunk_that_is_not_frozen_stays_as_it_was_loaded(data: TrainingData, make_job: Callable[..., Job]) -> None:
    frozen, free = (
        train_job(make_job(**{**ANCHORED, "model__freeze": freeze}), data, ignore).state() for freeze in ("all", "none")
    )
    trunk = [name for name in frozen if name.startswith("trunk.")]
    assert trunk
    assert all(torch.equal(frozen[name], free[name]) for name in trunk)


def test_the_job_depends_on_the_anchor_and_others_do_not(make_job: Callable[..., Job], tmp_path: Path) -> None:
    network = tmp_path / "map.onnx"
    ids: dict[str, set[str]] = {}
    for content in (b"one", b"other"):
        network.write_bytes(content)
        anchor = {"anchor__use": ["nuclei", "epithelium"], "anchor__epithelium": str(network)}
        for method in ("anchored", "dann_mcc_orient", "dann"):
            ids.setdefault(method, set()).add(make_job(train__method=method, **anchor).id)
    assert {method: len(found) for method, found in ids.items()} == {"anchored": 2, "dann_mcc_orient": 2, "dann": 1}
    assert make_job().id == make_job(anchor__epithelium=str(network)).id


def test_too_few_tiles_are_told(data: TrainingData, make_job: Callable[..., Job]) -> None:
    few = replace(data, target=replace(data.target, rows=data.target.rows[:5]))
    with pytest.raises(TrainingError, match="anchored: 5 target tiles; at least 10 are needed"):
        train_job(make_job(**ANCHORED), few, ignore)
