"""A job's explanation keeps its finished parts in the job's folder until all are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from oncoshift.data.tables import EvaluationTiles
from oncoshift.explain import attributions
from oncoshift.layout import Layout
from oncoshift.steps import explain
from oncoshift.steps import jobs as jobs_module
from oncoshift.steps.jobs import ExperimentJobs
from oncoshift.training.job import train_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job


class PulledPlugError(Exception):
    """A simulated kill."""


def test_a_killed_explanation_goes_on_and_leaves_nothing(
    data: TrainingData, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = data.target.rows
    names = np.array([f"tile-{row}" for row in rows])
    tiles = EvaluationTiles(data.target.images, rows, rows % 2, np.repeat("kidney", len(rows)), names, names)
    monkeypatch.setattr(jobs_module, "load_evaluation_tiles", lambda *_: tiles)
    monkeypatch.setattr(jobs_module, "load_training_data", lambda *_: data)
    monkeypatch.setattr(explain, "load_masks", lambda *_: None)
    monkeypatch.setattr(attributions, "_PART", 1)
    job = make_job(
        model__freeze="all", train__augment=False, train__epochs=1, explain__tiles=4, explain__steps=2,
        explain__max_steps=4, explain__internal_batch_size=2,
        explain__checked_tiles=0,
    )  # fmt: skip
    trained = train_job(job, data, lambda _row: None)
    jobs = ExperimentJobs(Layout(tmp_path), "none", job.settings.sources, "data", "pack", job.folder)

    def pull(done: int, of: int) -> None:
        if done == 3:
            raise PulledPlugError

    whole = explain.run(jobs, trained).explanation
    before = {path.name for path in trained.folder.iterdir()}
    with pytest.raises(PulledPlugError):
        explain.run(jobs, trained, pull)
    (folder,) = trained.folder.glob("explain-*")
    kept = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert kept.keys() == {"0.attributions", "1.attributions", "2.attributions"}

    def look(done: int, of: int) -> None:
        now = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert kept.items() <= now.items(), "nothing of it was written again"

    again = explain.run(jobs, trained, look, control=trained)
    assert again.control is not None
    for table in (again.explanation.table, again.control.table):
        pd.testing.assert_frame_equal(table, whole.table, check_exact=True)
    assert {path.name for path in trained.folder.iterdir()} == before
