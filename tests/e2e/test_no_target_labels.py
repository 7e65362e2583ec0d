"""Every label of the target turned around or permuted: the trained weights are the same to the bit."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny_tiles import write_tree

from oncoshift.data.ingest import ingest
from oncoshift.data.normalize import run_normalize
from oncoshift.data.split import run_split
from oncoshift.data.tables import LABELS
from oncoshift.experiment_jobs import ExperimentJobs
from oncoshift.layout import Layout
from oncoshift.settings import validate, with_values

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SETTINGS = validate(
    {
        "target": "kidney",
        "sources": ["lung", "colon"],
        "ingest": {"adapter": "manifest", "root": "tiles.csv"},
        "split": {"audit_share": 0.25, "test_share": 0.25},
        "normalize": {"variants": ["none", "reinhard"], "tile_size": 32},
        "model": {"bottleneck": 8},
        "train": {"epochs": 2, "batch_size": 8, "threads": 1, "device": "cpu"},
    }
)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    root = write_tree(tmp_path_factory.mktemp("tiles"), groups=8, tiles=2)
    rows = [
        {
            "path": path.relative_to(root).as_posix(),
            "organ": path.parts[-3],
            "label": path.parts[-2],
            "group": path.stem.rpartition("_")[0],
        }
        for path in sorted(root.glob("*/*/*.png"))
    ]
    return root, pd.DataFrame(rows)


def trained(root: Path, table: pd.DataFrame, folder: Path, method: str, variant: str) -> dict[str, Tensor]:
    """Weights after all stages, from the CSV to the last epoch."""
    table.to_csv(root / "tiles.csv", index=False)
    layout = Layout(folder)
    ingest(SETTINGS.ingest, root / "tiles.csv", layout.tiles, base=folder)
    return _train(layout, method, variant)


def _train(layout: Layout, method: str, variant: str) -> dict[str, Tensor]:
    run_split(SETTINGS.split, SETTINGS.target, SETTINGS.sources, layout)
    run_normalize(SETTINGS.normalize, layout)
    jobs = ExperimentJobs.open(layout, variant, SETTINGS.sources)
    job = jobs.job(SETTINGS, train__method=method, train__variant=variant)
    return load_file(jobs.train(job, lambda _row: None).weights)


@pytest.mark.parametrize(
    ("method", "variant"),
    [
        ("dann", "none"),
        ("dann", "reinhard"),
        ("erm", "none"),
        ("cdan_mcc", "none"),
        ("mdd", "none"),
        ("dann_multi", "none"),
        ("self_training", "none"),
        ("adabn", "none"),
    ],
)
@pytest.mark.parametrize("change", ["turned around", "permuted"])
def test_trained_weights_do_not_depend_on_target_labels(
    tiles: tuple[Path, pd.DataFrame], tmp_path: Path, method: str, variant: str, change: str
) -> None:
    root, table = tiles
    other = table.copy()
    target = other["organ"] == SETTINGS.target
    labels = other.loc[target, "label"].to_numpy()
    if change == "permuted":
        other.loc[target, "label"] = np.random.default_rng(0).permutation(labels)
    else:
        other.loc[target, "label"] = np.where(labels == LABELS[0], LABELS[1], LABELS[0])
    assert (other["label"] != table["label"]).sum() >= target.sum() // 4
    first = trained(root, table, tmp_path / "first", method, variant)
    second = trained(root, other, tmp_path / "second", method, variant)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_folders_spell_labels_in_paths_and_still_do_not_matter(
    tiles: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    """Each target tile moves to the other label's folder; its file keeps its name."""
    root, _ = tiles
    weights = []
    for turned in (False, True):
        data = tmp_path / str(turned) / "tiles"
        shutil.copytree(root, data, ignore=shutil.ignore_patterns("*.csv"))
        if turned:
            (data / "kidney" / LABELS[0]).rename(data / "kidney" / "other")
            (data / "kidney" / LABELS[1]).rename(data / "kidney" / LABELS[0])
            (data / "kidney" / "other").rename(data / "kidney" / LABELS[1])
        layout = Layout(tmp_path / str(turned))
        ingest(with_values(SETTINGS, {"ingest.adapter": "folder"}).ingest, data, layout.tiles, base=layout.folder)
        weights.append(_train(layout, "dann", "none"))
    first, second = weights
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_source_labels_do_matter(tiles: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    """The check above could also pass because nothing was trained at all."""
    root, table = tiles
    other = table.copy()
    source = other["organ"] == "lung"
    labels = other.loc[source, "label"]
    other.loc[source, "label"] = np.where(labels == LABELS[0], LABELS[1], LABELS[0])
    first = trained(root, table, tmp_path / "first", "erm", "none")
    second = trained(root, other, tmp_path / "second", "erm", "none")
    assert not all(torch.equal(first[name], second[name]) for name in first)
