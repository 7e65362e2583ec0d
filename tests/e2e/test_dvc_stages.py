"""`dvc repro` runs all six stages of one experiment, and then only those that a change affects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from PIL import Image

from oncoshift.cli import main
from oncoshift.data.packs.pack import Pack
from oncoshift.phantom import render_phantom_tile
from oncoshift.settings import PhantomSettings
from oncoshift.versioning import repro

if TYPE_CHECKING:
    from e2e.conftest import Project


def test_dvc_repro_trains_evaluates_and_explains_once(project: Project) -> None:
    assert repro(project.root) == ["train", "evaluate", "explain"], "the data stages have run"
    outputs = project.root / "outputs"
    metrics = json.loads((outputs / "evaluate/metrics.json").read_text())
    assert set(metrics) == {"lung", "colon", "kidney"}
    assert len(pd.read_csv(outputs / "train/history.csv")) == 2
    assert {"organ", "false_positive_rate", "true_positive_rate"} == set(pd.read_csv(outputs / "evaluate/roc.csv"))
    assert (outputs / "explain/integrated_gradients.png").stat().st_size > 1000

    assert repro(project.root) == []


@pytest.mark.slow
def test_another_setting_of_explanations_explains_again_alone(project: Project) -> None:
    repro(project.root)
    project.change(explain={"steps": 5})
    assert repro(project.root) == ["explain"]


@pytest.mark.slow
def test_dvc_repro_makes_only_the_tiles_that_are_new(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    assert main(["phantom"]) == 0
    repro(project.root, "normalize")
    before = Pack.open(project.root / "data/packs/none")
    kidney = project.root / "data/raw/kidney"
    (kidney / "unlabelled").mkdir()
    batch = [
        render_phantom_tile(PhantomSettings(tile_size=32, seed=9), "kidney", 0, 0, number).image for number in range(3)
    ]
    for number, image in enumerate(batch):
        Image.fromarray(image).save(kidney / "unlabelled" / f"new_{number}.png")

    assert repro(project.root, "normalize") == ["ingest", "split", "normalize"]
    after = Pack.open(project.root / "data/packs/none")
    assert set(before.index["shard"]) < set(after.index["shard"])
    new = after.index[~after.index["shard"].isin(before.index["shard"])]
    assert new["tile_id"].tolist() == [f"kidney/unlabelled/new_{number}.png" for number in range(3)]
    assert {"kidney/unlabelled/new_0.png"} < set(
        pd.read_parquet(project.root / "data/splits/target_train.parquet")["tile_id"]
    )

    damaged = project.root / "data/packs/none/shards" / new["shard"].iloc[0]
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert repro(project.root, "normalize") == ["normalize"]
    assert Pack.open(project.root / "data/packs/none").content == after.content

    project.change(split={"audit_share": 0.3})
    assert repro(project.root, "normalize") == ["split"]
    (kidney / "unlabelled/new_2.png").unlink()
    assert repro(project.root, "normalize") == ["ingest", "split", "normalize"]
    assert len(Pack.open(project.root / "data/packs/none").images) == len(before.images) + 2
