"""When a retraining counts as one that was done before."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from oncoshift.experiment_jobs import ExperimentJobs
from oncoshift.files import DamagedFileError
from oncoshift.layout import SPLITS, Layout
from oncoshift.retraining.session import Plan, Session, finished_summary, retraining_key
from oncoshift.settings import Settings, with_values

if TYPE_CHECKING:
    from pathlib import Path


def key(folder: Path, data: str = "data", forced: str = "", **changes: Any) -> str:
    """The key of a retraining of what lies in a folder."""
    settings = with_values(Settings(), {name.replace("__", "."): value for name, value in changes.items()})
    layout = Layout(folder)
    jobs = ExperimentJobs(layout, "none", settings.sources, data, "pack", layout.jobs)
    return retraining_key(Plan(folder, layout, settings, "sqlite://", forced, print), jobs)


def test_epochs_of_a_training_that_goes_on_are_logged_and_only_new_ones_said(tmp_path: Path) -> None:
    said: list[str] = []
    layout, tracker = Layout(tmp_path), Mock()
    plan = Plan(tmp_path, layout, Settings(), "sqlite://", "", said.append)
    hook = Session(plan, Mock(), tracker, "key", "parent").epoch_logger("run", "dann seed 0", 4)
    for epoch, when in enumerate((1000.0, 2000.0, math.inf, math.inf)):
        now = 10_000 * time.time() if when == math.inf else when
        hook(
            {"epoch": float(epoch), "timestamp_ms": now, "epoch_seconds": 1.0, "source_accuracy": 0.9,
             "information_maximisation": 0.5}
        )  # fmt: skip
    steps = [rows[0][0] for _, rows in (call.args for call in tracker.log_metrics.call_args_list)]
    assert steps == [0, 1, 2, 3]
    assert said[0] == "dann seed 0: goes on after epoch 2/4"
    assert [line.split(",")[0] for line in said[1:]] == ["dann seed 0: epoch 3/4", "dann seed 0: epoch 4/4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file for each split; only their bytes count here."""
    splits = Layout(tmp_path).splits
    splits.mkdir(parents=True)
    for name in SPLITS:
        (splits / f"{name}.parquet").write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    "changes",
    [
        {"train__device": "cpu", "train__threads": 3, "train__processes": 2},
        {"train__checkpoint_steps": 7, "train__checkpoint_minutes": None, "train__on_nonfinite": "skip"},
        {"tune__workers": 4, "tune__storage": "postgresql://host/studies", "tune__heartbeat_seconds": 60},
        {"tracking__uri": "http://127.0.0.1:5000"},
    ],
)
def test_where_and_how_it_runs_makes_no_other_retraining(folder: Path, changes: dict[str, Any]) -> None:
    """Else a move to another machine would judge the champion again."""
    assert key(folder, **changes) == key(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"train__lr": 0.5},
        {"train__micro_batches": 2},
        {"tune__trials": 50},
        {"gate__min_auroc": 0.99},
        {"retrain__seeds": 7},
        {"data": "other"},
        {"forced": "20261125"},
    ],
)
def test_what_decides_the_outcome_makes_another_retraining(folder: Path, changes: dict[str, Any]) -> None:
    """Training, judging, data and force."""
    assert key(folder, **changes) != key(folder)


@pytest.mark.parametrize("split", ["audit", "test"])
def test_new_audit_or_test_tiles_make_another_retraining(folder: Path, split: str) -> None:
    """They train nothing, and judge."""
    before = key(folder)
    (Layout(folder).splits / f"{split}.parquet").write_bytes(b"more")
    assert key(folder) != before


class Store:
    """A tracker of which the run of every key is finished, with a summary that may be damaged."""

    def __init__(self, summary: dict[str, Any] | None) -> None:
        self.summary = summary

    def is_finished(self, key: str) -> bool:
        return key == "key"

    def read_sealed(self, run_id: str, path: str, *needed: str) -> dict[str, Any]:
        assert (run_id, "version" in needed) == ("parent", True)
        if self.summary is None:
            raise DamagedFileError(f"{path}: damaged")
        return self.summary


@pytest.mark.parametrize("summary", [{"version": "1"}, None])
def test_with_a_damaged_summary_the_steps_are_done_again(folder: Path, summary: dict[str, Any] | None) -> None:
    said: list[str] = []
    layout, settings = Layout(folder), Settings()
    jobs = ExperimentJobs(layout, "none", settings.sources, "data", "pack", layout.jobs)
    plan = Plan(folder, layout, settings, "sqlite://", "", said.append)
    session = Session(plan, jobs, Store(summary), "key", "parent")  # type: ignore[arg-type]
    assert finished_summary(session) == summary
    expected = "summary.json: damaged; the steps are looked through again, and it is written anew"
    assert said == ([expected] if summary is None else [])
