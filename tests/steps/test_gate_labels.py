"""The labels that gate: whose they may be, and what of a model's calls they count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from oncoshift.data.parquet import write_table
from oncoshift.data.tables import TargetLabels
from oncoshift.errors import DataError
from oncoshift.labels.table import COLUMNS, GATE, TRAIN, write_labels
from oncoshift.layout import Layout
from oncoshift.settings import parse_settings
from oncoshift.steps import gate
from oncoshift.steps import jobs as jobs_module
from oncoshift.steps.jobs import ExperimentJobs

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.registry.decision import LabelEvidence

MALIGNANT = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 0, "f": 1}
"""The true class of each tile; each is of a group of its own."""
CALLED = {"a", "c", "d", "e"}
"""Tiles that the model calls malignant: of the gate's, three of four are called rightly."""
USES = {GATE: "abcd", TRAIN: "ef"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An experiment whose sources share no group with the target."""
    write_sources(Layout(tmp_path), "x", "y")
    return Layout(tmp_path)


def write_sources(layout: Layout, training: str, validation: str) -> None:
    """Write the groups of the sources."""
    layout.splits.mkdir(parents=True, exist_ok=True)
    for name, groups in (("source_train", training), ("source_val", validation)):
        write_table(pd.DataFrame({"group": list(groups)}), layout.splits / f"{name}.parquet")


def gather(
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
    uses: dict[str, str] = USES,
    *,
    inverted: bool = False,
    trained_by: str = "",
) -> LabelEvidence | None:
    """Gather the evidence of tiles of some uses, with their true labels or the opposite ones."""

    def load(_target: str, use: str) -> TargetLabels:
        names = np.array(list(uses[use]), np.str_)
        labels = np.array([MALIGNANT[name] ^ inverted for name in uses[use]], np.int64)
        return TargetLabels(names, np.arange(len(names)), labels, names)

    def predict(_name: str, _version: str, _uri: str, raw: list[str]) -> Any:
        calls = np.array([float(name in CALLED) for name in raw])
        return SimpleNamespace(calls=SimpleNamespace(probabilities=calls, threshold=0.5))

    monkeypatch.setattr(gate, "read_raw_tiles", lambda _layout, tile_ids: tile_ids)
    monkeypatch.setattr(gate, "_predict_as_served", predict)
    jobs: Any = SimpleNamespace(layout=layout, load_labels=load, count_skipped=lambda *_: 3)
    picked = SimpleNamespace(job=SimpleNamespace(labels_digest=trained_by))
    challenge: Any = SimpleNamespace(name="x", version="1", selection=SimpleNamespace(picked=picked))
    monkeypatch.setattr(gate, "count_judged", lambda _client, _name, _version, labels: len(labels))
    recorder: Any = SimpleNamespace(tracker=SimpleNamespace(uri="uri", client=None))
    return gate._gather_labels(recorder, jobs, challenge, parse_settings({}))


def test_the_gates_labels_alone_are_counted_and_as_they_were_given(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = gather(layout, monkeypatch)
    assert found is not None
    assert str(found.counts) == "1 of 2 benign, 2 of 2 malignant"
    inverted = gather(layout, monkeypatch, inverted=True)
    assert inverted is not None
    assert str(inverted.counts) == "0 of 2 benign, 1 of 2 malignant"
    swapped = gather(layout, monkeypatch, {GATE: "ef", TRAIN: "abcd"})
    assert swapped is not None
    assert str(swapped.counts) == "0 of 1 benign, 0 of 1 malignant"
    assert len({each.digest for each in (found, inverted, swapped)}) == 3
    assert found.earlier == len(found.digest), "it is asked how often these labels judged"


def test_a_group_with_tiles_in_a_source_counts_as_one_that_trains(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = gather(layout, monkeypatch)
    assert found is not None
    assert found.also_trained == 0
    write_sources(layout, "ax", "by")
    shared = gather(layout, monkeypatch)
    assert shared is not None
    assert shared.also_trained == 2


def test_groups_are_counted_by_the_class_of_their_labels(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gather(layout, monkeypatch, {GATE: "abec", TRAIN: ""})
    assert found is not None
    assert found.by_class == {"benign": 3, "malignant": 1}
    assert found.skipped == 3


def test_labels_that_trained_the_model_must_be_the_present_ones(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = np.array(["e", "f"])
    present = TargetLabels(names, np.arange(2), np.array([0, 1]), names).digest
    for digest, changed in (("", False), (present, False), ("another", True)):
        found = gather(layout, monkeypatch, trained_by=digest)
        assert found is not None
        assert found.changed == changed


def test_labels_are_read_once_and_a_job_of_others_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    for folder in (layout.splits, layout.tiles):
        folder.mkdir(parents=True)
    ids = ["1", "2", "3"]
    write_table(pd.DataFrame({"tile_id": ids, "group": ids}), layout.splits / "target_train.parquet")
    write_table(pd.DataFrame({"tile_id": ids, "sha256": ids}), layout.tiles / "tiles.parquet")
    rows = [("1", "1", TRAIN, "benign", "1"), ("2", "2", GATE, "skip", "2")]
    monkeypatch.setattr(jobs_module, "load_training_data", lambda *_: None)
    monkeypatch.setattr(
        "oncoshift.steps.jobs.Pack.open", lambda _: SimpleNamespace(rows=lambda each: np.arange(len(each)))
    )
    settings = parse_settings({"train": {"method": "few_labels"}})

    def write(*more: tuple[str, ...]) -> ExperimentJobs:
        write_labels(layout.labels, settings.target, pd.DataFrame([*rows, *more], columns=list(COLUMNS)))
        return ExperimentJobs(layout, "none", settings.sources, "data", "pack", layout.jobs)

    layout.labels.mkdir(parents=True)
    jobs = write()
    job = jobs.make_job(settings)
    later = write(("3", "3", TRAIN, "malignant", "3"))
    assert jobs.load_labels(settings.target, TRAIN).tile_ids.tolist() == ["1"]
    assert later.load_labels(settings.target, TRAIN).tile_ids.tolist() == ["1", "3"]
    assert [jobs.count_skipped(settings.target, use) for use in (TRAIN, GATE)] == [0, 1]
    with pytest.raises(DataError, match="labels of kidney have changed meanwhile; start again"):
        later.train(job, lambda _epoch: None)
