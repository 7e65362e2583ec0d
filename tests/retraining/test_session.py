"""A retraining has the same key as an earlier one exactly if nothing that matters has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from oncoshift.layout import SPLITS, Layout
from oncoshift.retraining.session import RetrainingPlan, compute_retraining_key
from oncoshift.settings import Settings, replace_values
from oncoshift.steps.jobs import ExperimentJobs

if TYPE_CHECKING:
    from pathlib import Path


def key(folder: Path, data: str = "data", forced: str = "", reinhard: str = "", **changes: Any) -> str:
    """Compute the key of a retraining on the data in a folder, with a pack `reinhard` if named."""
    settings = replace_values(Settings(), {name.replace("__", "."): value for name, value in changes.items()})
    layout = Layout(folder)
    jobs = ExperimentJobs(layout, "none", settings.sources, data, "pack", layout.jobs)
    jobs._others["reinhard"] = ExperimentJobs(layout, "reinhard", settings.sources, reinhard, "pack", layout.jobs)
    return compute_retraining_key(RetrainingPlan(folder, layout, settings, "sqlite://", forced, print), jobs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file for each split; only their bytes matter here."""
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
    """Otherwise a move to another machine would judge the champion again."""
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
    """Training, judging, data and `--force` all decide the outcome."""
    assert key(folder, **changes) != key(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"retrain__methods": ["mcc"], "retrain__variants": ["none", "reinhard"]},
        {"select__variants": ["none", "reinhard"]},
    ],
)
def test_another_pack_that_is_chosen_from_or_is_a_witness_makes_another_retraining(
    folder: Path, changes: dict[str, Any]
) -> None:
    assert key(folder, reinhard="one", **changes) != key(folder, reinhard="other", **changes)
    assert key(folder, reinhard="one") == key(folder, reinhard="other"), "nothing reads it"


@pytest.mark.parametrize("split", ["audit", "test"])
def test_new_audit_or_test_tiles_make_another_retraining(folder: Path, split: str) -> None:
    """These tiles are used for judging only."""
    before = key(folder)
    (Layout(folder).splits / f"{split}.parquet").write_bytes(b"more")
    assert key(folder) != before
