"""A method that reads labels is a job whose key holds them, around a prior that none reaches."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from oncoshift.data.tables import TargetLabels
from oncoshift.errors import TrainingError
from oncoshift.training.job import find_trained, predict_job, train_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job

FROZEN = {"model__freeze": "all", "train__augment": False}


def ignore(row: Mapping[str, float]) -> None:
    """Do nothing, as a hook."""


def label(data: TrainingData, labels: list[int]) -> TrainingData:
    """Label the first target tiles; the stripes' true labels are 0, 1, 0, 1, …"""
    rows = data.target.rows[: len(labels)]
    names = rows.astype(str)
    return replace(data, labels=TargetLabels(names, rows, np.array(labels, np.int64), names))


def make(make_job: Callable[..., Job], prior: str = "anchored", digest: str = "x", **changes: object) -> Job:
    return replace(
        make_job(**FROZEN, train__method="few_labels", few_labels__prior=prior, **changes), labels_digest=digest
    )


@pytest.mark.parametrize("prior", ["anchored", "dann", "erm"])
def test_labelled_tiles_are_called_by_their_labels_and_the_trunk_stays(
    data: TrainingData, make_job: Callable[..., Job], prior: str
) -> None:
    job, rows = make(make_job, prior), data.target.rows
    for labels in ([0, 1, 0, 1], [1, 0, 1, 0]):
        trained = train_job(replace(job, labels_digest=str(labels)), label(data, labels), ignore)
        said = predict_job(trained, data.target.images, rows)
        assert (said[:4] > 0.5).tolist() == [each == 1 for each in labels]
        assert np.mean(said > 0.5) == trained.last["target_malignant_share"]
        assert (trained.last["benign_labels"], trained.last["malignant_labels"]) == (2, 2)
    of_prior = make_job(**FROZEN, train__method=prior)
    alone = find_trained(of_prior)
    assert alone is not None, "the prior is a job of its own, the same that a retraining trains"
    assert trained.last.source_accuracy == alone.last.source_accuracy
    kept, changed = alone.state(), trained.state()
    differing = {name for name in kept if not torch.equal(kept[name], changed[name])}
    assert differing == {"head.weight", "head.bias"}


def test_the_prior_does_not_depend_on_labels(data: TrainingData, make_job: Callable[..., Job], tmp_path: Path) -> None:
    weights = []
    for number, labels in enumerate(([0, 1], [1, 0])):
        job = make(make_job, folder=tmp_path / str(number))
        train_job(job, label(data, labels), ignore)
        (folder,) = job.folder.glob("anchored-*")
        weights.append(load_file(folder / "weights.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_key_holds_labels_and_all_that_the_prior_reads(make_job: Callable[..., Job]) -> None:
    ids = {
        make(make_job, **changes).id
        for changes in ({}, {"digest": "y"}, {"prior": "dann"}, {"anchored__tiles": 0.5}, {"anchor__use": ["nuclei"]})
    }
    assert len(ids) == 4, "the last one is the default"
    assert make(make_job, prior="dann", anchored__tiles=0.5).id in {make(make_job, prior="dann").id}


@pytest.mark.parametrize(("labels", "said"), [(None, "no labels"), ([1, 1], "0 benign and 2 malignant labels")])
def test_labels_of_one_class_are_told(
    data: TrainingData, make_job: Callable[..., Job], labels: list[int] | None, said: str
) -> None:
    job = make(make_job)
    with pytest.raises(TrainingError, match=f"few_labels: {said} of kidney to train with.*`oncoshift label propose`"):
        train_job(job, data if labels is None else label(data, labels), ignore)
    assert not list(job.folder.glob("anchored-*")), "before the prior is trained"


def test_the_key_holds_the_versions_of_the_libraries_that_correct_the_head(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = importlib.metadata.version
    before = make(make_job).id, make_job(train__method="erm").id
    monkeypatch.setattr("oncoshift.fingerprint.version", lambda name: "99" if name == "scipy" else installed(name))
    after = make(make_job).id, make_job(train__method="erm").id
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True]
