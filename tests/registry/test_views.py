"""Saved views of MLflow's runs table."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from oncoshift.registry.tracking import Tracker
from oncoshift.registry.views import RETRAININGS, TRAININGS, View, build_view_path, save_views

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    folder: Path = tmp_path_factory.mktemp("store")
    return Tracker(f"sqlite:///{folder}/mlflow.db", "tests")


def read_state(tags: dict[str, str], view: View) -> dict[str, Any]:
    """Read a view as MLflow's UI does."""
    envelope = json.loads(tags[f"mlflow.sharedViewState.{view.key}"])
    assert envelope["name"] == view.name
    kind, _, packed = envelope["state"].partition(";")
    assert kind == "deflate"
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state


def test_views_show_the_runs_of_their_step_and_every_chart_is_in_a_section(tracker: Tracker) -> None:
    save_views(tracker.client, tracker.experiment_id)
    tags = tracker.client.get_experiment(tracker.experiment_id).tags
    for view in (RETRAININGS, TRAININGS):
        state = read_state(tags, view)
        assert state["searchFilter"] == f"tags.`oncoshift.step` = '{view.step}'"
        assert "metrics.`target/balanced_accuracy`" in state["selectedColumns"]
        sections = {section["uuid"] for section in state["compareRunSections"]}
        assert {card["metricSectionId"] for card in state["compareRunCharts"]} == sections
        assert f"({build_view_path(tracker.experiment_id, view)})" in tags["mlflow.note.content"]


def test_a_description_that_somebody_wrote_stays(tracker: Tracker) -> None:
    tracker.client.set_experiment_tag(tracker.experiment_id, "mlflow.note.content", "mine")
    save_views(tracker.client, tracker.experiment_id)
    assert tracker.client.get_experiment(tracker.experiment_id).tags["mlflow.note.content"] == "mine"
