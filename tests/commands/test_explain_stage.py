"""Stage `explain` writes a page that needs no other file, and tables that open safely."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from unittest.mock import MagicMock, Mock

import numpy as np
import pandas as pd
import pytest
import torch

from oncoshift.commands import stages
from oncoshift.explain.explanation import Explanation, explain
from oncoshift.serving.classifier import TileClassifier
from oncoshift.settings import ExplainSettings
from oncoshift.steps.explain import ExplainedModel
from oncoshift.steps.recorder import FolderRecorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    """Two tiles whose names a spreadsheet would take for formulas, and a browser for markup."""
    torch.manual_seed(0)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    return explain(
        TileClassifier("resnet18", 8, 0.5),
        tiles,
        None,
        tile_ids=np.array(["=1+1_2.png", "<b>a.png"]),
        groups=np.array(["=1+1", "a"]),
        mean_image=tiles.mean(axis=0),
        device="cpu",
        settings=ExplainSettings(steps=1, max_steps=2, checked_tiles=1),
        labels=np.array([0, 1]),
    )


@pytest.fixture
def folder(explanation: Explanation, tmp_path: Path) -> Path:
    trained = Mock()
    trained.job.settings.target, trained.job.settings.train.method, trained.job.id = "kidney", "dann", "dann-s0-1"
    place = tmp_path / "outputs" / "explain"
    ExplainedModel(trained, explanation, explanation).record(FolderRecorder(place))
    return place


def test_no_name_in_its_table_is_a_formula(folder: Path) -> None:
    lines = (folder / "integrated_gradients.csv").read_text().splitlines()
    assert lines[1].startswith("./=1+1_2.png,'=1+1,")
    assert lines[2].startswith("<b>a.png,a,")


def test_the_page_needs_no_other_file_and_no_script(folder: Path) -> None:
    page = (folder / "gallery.html").read_text()
    assert "kidney: explanation of dann-s0-1" in page
    assert page.count('src="data:image/') == page.count("<img") == 2 * 5
    assert not re.search(r"<script|https?://|@import|url\(", page)
    assert "&lt;b&gt;a.png" in page
    assert "<b>a.png" not in page


def test_tables_compare_models_and_baselines(folder: Path) -> None:
    nuclei = pd.read_csv(folder / "nuclei.csv")
    assert nuclei[["model", "class"]].to_numpy().tolist() == [
        ["source-only", "benign"],
        ["source-only", "malignant"],
        ["adapted (dann)", "benign"],
        ["adapted (dann)", "malignant"],
    ]
    baselines = pd.read_csv(folder / "baselines.csv")
    assert baselines["baseline"].tolist() == ["mean", "blurred", "white", "black"]
    assert baselines["agreement"][0] == 1


def test_its_progress_names_what_it_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The maps of checks count as well, so there are more than tiles."""

    def run(_jobs: object, _trained: object, on_progress: Callable[[int, int], None]) -> Mock:
        on_progress(20, 20)
        return Mock(explanation=Mock(as_dict=dict))

    monkeypatch.setattr("oncoshift.commands.stages._open_jobs", Mock())
    monkeypatch.setattr("oncoshift.commands.stages._read_trained", Mock())
    monkeypatch.setattr("oncoshift.steps.explain.run", run)
    stages.explain(MagicMock())
    assert capsys.readouterr().err == "explain: attribution maps: 20/20\n"
