"""`oncoshift compare RUN_A RUN_B`: runs by id, prefix or name; a table, JSON and an artifact."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from oncoshift.cli import main
from oncoshift.registry.tracking import Tracker
from oncoshift.settings import Settings, dump_settings, replace_values

if TYPE_CHECKING:
    from pathlib import Path


def make_table(gain: float, organ: str = "kidney") -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = []
    for seed in (0, 1):
        for tile in range(48):
            label = tile % 12 % 2
            probability = float(np.clip(0.5 + gain * (label - 0.5) + rng.normal(0, 0.2), 0, 1))
            rows.append((f"{organ}/{tile}", organ, str(tile % 12), label, probability, seed))
    return pd.DataFrame(rows, columns=["tile_id", "organ", "group", "label", "probability", "seed"])


def log_retraining(tracker: Tracker, name: str, gain: float, target: str = "kidney") -> str:
    """Log a retraining with its evaluation and one training; return its id."""
    tags = {"oncoshift.step": "retrain", "oncoshift.target": target}
    run = tracker.find_or_start_run(f"key-{name}", name, tags=tags)
    tracker.log_params(run, {"method": "dann"})
    step = tracker.find_or_start_run(f"key-{name}/evaluate", "evaluate", parent=run)
    tracker.log_table(step, make_table(gain, target), "dann/predictions.json")
    tracker.log_table(step, make_table(0.1, target), "erm/predictions.json")
    training = tracker.find_or_start_run(f"key-{name}/t", f"erm-{name}", parent=run, tags={"oncoshift.step": "train"})
    tracker.log_params(training, {"method": "erm", "seed": 1})
    return run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with retrainings of two targets, and two that were not evaluated."""
    root = tmp_path_factory.mktemp("project")
    uri = f"sqlite:///{root}/mlflow.db"
    settings = replace_values(
        Settings(), {"tracking.uri": uri, "tracking.experiment": "tests", "evaluate.bootstrap": 100}
    )
    (root / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    tracker = Tracker(uri, "tests")
    ids = {
        "first": log_retraining(tracker, "kidney ← lung · 1", 0.3),
        "second": log_retraining(tracker, "kidney ← lung · 2", 0.9),
        "lung": log_retraining(tracker, "lung", 0.9, target="lung"),
        "open": tracker.find_or_start_run(
            "open", "twice", tags={"oncoshift.step": "retrain", "oncoshift.target": "kidney"}
        ),
        "same": tracker.find_or_start_run(
            "same", "twice", tags={"oncoshift.step": "retrain", "oncoshift.target": "kidney"}
        ),
    }
    (root / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
    return root


def compare(project: Path, *arguments: str) -> int:
    return main(["compare", "--params", str(project / "params.yaml"), *arguments])


def test_two_runs_are_compared_by_name_and_prefix_and_the_result_is_kept(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = json.loads((project / "ids.json").read_text())
    assert compare(project, "kidney ← lung · 1", ids["second"][:12]) == 0
    text = capsys.readouterr().out
    assert f"A: kidney ← lung · 1 ({ids['first'][:8]}, dann)" in text
    assert "48 common test tiles, 12 groups, 2 and 2 seeds" in text
    assert "balanced accuracy" in text
    assert "McNemar, groups: only A right" in text
    tracker = Tracker(f"sqlite:///{project}/mlflow.db", "tests")
    saved = tracker.client.list_artifacts(ids["second"], "comparisons")
    assert [each.path for each in saved] == [f"comparisons/{ids['first'][:8]}{end}" for end in (".json", ".md")]
    assert f"comparisons/{ids['first'][:8]}.md in run B" in text


def test_json_has_the_differences_and_a_training_is_one_seed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = json.loads((project / "ids.json").read_text())
    assert compare(project, "erm-kidney ← lung · 1", ids["second"], "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["seeds"] == [1, 2]
    pair = values["metrics"]["balanced_accuracy"]
    assert pair["difference"]["point"] == pytest.approx(pair["b"] - pair["a"])
    assert pair["difference"]["low"] > 0


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (("first", "nothing-like-it"), "no retraining or training has the id, prefix of an id, or name"),
        (("first", "twice"), "'twice' is 2 runs: "),
        (("first", "open"), "has no predictions: its retraining has not reached step evaluate"),
        (("first", "lung"), "adapts to kidney and lung"),
        (("first",), "compare takes two runs, or none"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_line(
    project: Path, capsys: pytest.CaptureFixture[str], runs: tuple[str, ...], said: str
) -> None:
    ids = json.loads((project / "ids.json").read_text())
    assert compare(project, *(ids.get(each, each) for each in runs)) != 0
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_without_a_store_none_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = replace_values(Settings(), {"tracking.uri": f"sqlite:///{tmp_path}/none.db"})
    (tmp_path / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    assert compare(tmp_path, "a", "b") != 0
    assert "no runs to compare yet" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()
