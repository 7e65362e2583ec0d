"""A row is found again by all that its result depends on; its intervals are over true groups."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from oncoshift.data.parquet import write_table
from oncoshift.grid.measure import _judge, _restore_groups, identify_row
from oncoshift.grid.rows import Pool, Row
from oncoshift.layout import Layout
from oncoshift.settings import Settings, replace_values
from oncoshift.steps import select
from oncoshift.steps.jobs import ExperimentJobs

if TYPE_CHECKING:
    from pathlib import Path

POOL = Pool("lung", ("colon", "breast"))
ROW = Row(POOL, "dann", "none")


@dataclass
class Found:
    """A stand-in for a selection."""

    contradictions: dict[str, float] = field(default_factory=dict)


@pytest.fixture
def jobs(tmp_path: Path) -> ExperimentJobs:
    layout = Layout(tmp_path)
    for name in ("source_val", "test"):
        path = layout.splits / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return ExperimentJobs(layout, "none", POOL.sources, "data", "pack", tmp_path / "jobs")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.epochs", 3),
        ("retrain.seeds", 2),
        ("seed", 7),
        ("evaluate.bootstrap", 200),
        ("select.trust_strength", 0.8),
        ("select.anchors", True),
    ],
)
def test_what_changes_a_rows_result_changes_its_key(jobs: ExperimentJobs, key: str, value: object) -> None:
    assert identify_row(jobs, ROW, replace_values(Settings(), {key: value})) != identify_row(jobs, ROW, Settings())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("paper.workers", 4),
        ("paper.methods", ["dann"]),
        ("paper.pools", [["lung", "colon", "breast"], ["breast", "colon"]]),
        ("mcc.weight", 2.0),
        ("gate.min_auroc", 0.5),
    ],
)
def test_what_does_not_keeps_it(jobs: ExperimentJobs, key: str, value: object) -> None:
    assert identify_row(jobs, ROW, replace_values(Settings(), {key: value})) == identify_row(jobs, ROW, Settings())


def test_a_row_that_leaves_sources_out_depends_on_the_limit(jobs: ExperimentJobs) -> None:
    changed = replace_values(Settings(), {"retrain.leave_out_below": -0.5})
    leaving_out = replace(ROW, leaves_out=True)
    assert identify_row(jobs, leaving_out, changed) != identify_row(jobs, leaving_out, Settings())
    assert identify_row(jobs, ROW, changed) == identify_row(jobs, ROW, Settings())


@pytest.mark.parametrize("leaves_out", [True, False])
def test_a_row_that_leaves_sources_out_is_trained_again_without_what_contradicts(
    jobs: ExperimentJobs, monkeypatch: pytest.MonkeyPatch, leaves_out: bool
) -> None:
    trained: list[tuple[str, ...]] = []
    monkeypatch.setattr("oncoshift.grid.measure._train", lambda _jobs, own: trained.append(own.sources))
    monkeypatch.setattr(select, "run", lambda *_: Found())
    monkeypatch.setattr(select, "find_contradictions", lambda *_: {"kidney": -0.8})
    row = Row(Pool("colon", ("lung", "breast", "kidney")), "mcc", "none", leaves_out=leaves_out)
    _, without = _judge(jobs, row, Settings(), lambda _line: None)
    assert trained == [("lung", "breast", "kidney"), *([("lung", "breast")] if leaves_out else [])]
    assert without == ({"kidney": -0.8} if leaves_out else {})


def test_other_held_out_tiles_change_it(jobs: ExperimentJobs) -> None:
    before = identify_row(jobs, ROW, Settings())
    (jobs.layout.splits / "test.parquet").write_text("others")
    assert identify_row(jobs, ROW, Settings()) != before


def test_the_verdicts_settings_are_of_no_concern_to_a_row_that_is_not_judged(jobs: ExperimentJobs) -> None:
    control, changed = Row(POOL, "erm", "none"), replace_values(Settings(), {"select.trust_strength": 0.8})
    assert identify_row(jobs, control, changed) == identify_row(jobs, control, Settings())


def test_groups_are_those_of_ingest_whatever_the_tiles_were_split_by(jobs: ExperimentJobs) -> None:
    tiles = pd.DataFrame({"tile_id": ["a", "b", "c"], "group": ["p1", "p1", "p2"]})
    write_table(tiles, jobs.layout.tiles / "tiles.parquet")
    split_by_tile = pd.DataFrame({"tile_id": ["c", "a", "b", "a"], "group": ["c", "a", "b", "a"], "seed": [0, 0, 0, 1]})
    assert _restore_groups(jobs, split_by_tile)["group"].tolist() == ["p2", "p1", "p1", "p1"]
