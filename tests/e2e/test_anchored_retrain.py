"""A retraining by an anchor names it in runs, version, card and gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from e2e.conftest import Project

MODEL = "oncoshift-kidney"


@pytest.mark.slow
def test_the_anchor_is_named_wherever_the_model_is_judged(project: Project, prefect_server: str) -> None:
    project.prefect = prefect_server
    project.change(train={"method": "anchored"}, tune={"trials": 0}, select={"anchors": True})
    output = project.run()
    assert "adapted (anchored)" in output
    assert "one anchor: no independent model to compare with; add another" in output
    client = project.client
    (version,) = client.search_model_versions(f"name = '{MODEL}'")
    assert version.tags["oncoshift.anchor"] == "nuclei in training"
    assert version.tags["oncoshift.verdict"] == "doubt"
    assert "Anchor (prior knowledge of morphology, not a label): nuclei in training." in version.description
    experiment = client.get_experiment_by_name("oncoshift")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs["anchored · seed 0"].data.tags["oncoshift.anchor"] == "nuclei"
    assert {"train/estimated_malignant_share", "train/nuclei"} <= runs["anchored · seed 0"].data.metrics.keys()
    gate = Path(client.download_artifacts(runs["gate"].info.run_id, "gate.md")).read_text(encoding="utf-8")
    assert "Anchor (prior knowledge of morphology, not a label): nuclei in training." in gate
