"""One experiment by hand: `dvc repro` through all six stages, and only what a change touches the second time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd

from oncoshift.cli import main
from oncoshift.versioning import repro

if TYPE_CHECKING:
    import pytest
    from conftest import Project


def test_dvc_repro_trains_evaluates_and_explains_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    assert main(["phantom"]) == 0
    assert repro(project.root) == ["ingest", "split", "normalize", "train", "evaluate", "explain"]
    outputs = project.root / "outputs"
    metrics = json.loads((outputs / "evaluate/metrics.json").read_text())
    assert set(metrics) == {"lung", "colon", "kidney"}
    assert len(pd.read_csv(outputs / "train/history.csv")) == 2
    assert {"organ", "false_positive_rate", "true_positive_rate"} == set(pd.read_csv(outputs / "evaluate/roc.csv"))
    assert (outputs / "explain/integrated_gradients.png").stat().st_size > 1000

    assert repro(project.root) == []

    project.change(explain={"steps": 5})
    assert repro(project.root) == ["explain"]
