"""Trained weights stay the same to the bit when target labels are inverted or permuted."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from support.tiny_tiles import write_tree

from oncoshift.data.ingest import ingest
from oncoshift.data.normalize import run_normalize
from oncoshift.data.split import run_split
from oncoshift.data.tables import LABELS
from oncoshift.layout import Layout
from oncoshift.settings import parse_settings, replace_values
from oncoshift.steps.jobs import ExperimentJobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

SETTINGS = parse_settings(
    {
        "target": "kidney",
        "sources": ["lung", "colon"],
        "ingest": {"adapter": "manifest", "root": "tiles.csv"},
        "split": {"audit_share": 0.25, "test_share": 0.25},
        "normalize": {"variants": ["none", "reinhard"], "tile_size": 32},
        "model": {"bottleneck": 8},
        "train": {"epochs": 2, "steps_per_epoch": 3, "batch_size": 8, "threads": 1, "device": "cpu"},
    }
)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tiles"), groups=8, tiles=2)


@pytest.fixture(scope="module")
def table(tiles: Path) -> pd.DataFrame:
    """The tiles as a CSV manifest."""
    rows = [
        {
            "path": path.relative_to(tiles).as_posix(),
            "organ": path.parts[-3],
            "label": path.parts[-2],
            "group": path.stem.rpartition("_")[0],
        }
        for path in sorted(tiles.glob("*/*/*.png"))
    ]
    return pd.DataFrame(rows)


def turned_around(labels: NDArray[np.object_]) -> NDArray[np.object_]:
    return np.where(labels == LABELS[0], LABELS[1], LABELS[0])


def permuted(labels: NDArray[np.object_]) -> NDArray[np.object_]:
    return np.random.default_rng(0).permutation(labels)


def changed(
    table: pd.DataFrame, organ: str, change: Callable[[NDArray[np.object_]], NDArray[np.object_]]
) -> pd.DataFrame:
    """Return the manifest with one organ's labels changed."""
    other, rows = table.copy(), table["organ"] == organ
    other.loc[rows, "label"] = change(other.loc[rows, "label"].to_numpy())
    assert (other["label"] != table["label"]).sum() >= rows.sum() // 4
    return other


def from_manifest(tiles: Path, table: pd.DataFrame, folder: Path) -> Layout:
    """Run all data stages, from the CSV to the packs."""
    table.to_csv(tiles / "tiles.csv", index=False)
    layout = Layout(folder)
    ingest(SETTINGS.ingest, tiles / "tiles.csv", layout.tiles, base=folder)
    return split_and_pack(layout)


def split_and_pack(layout: Layout) -> Layout:
    """Run the stages after ingest."""
    run_split(SETTINGS.split, SETTINGS.target, SETTINGS.sources, layout)
    run_normalize(SETTINGS.normalize, layout)
    return layout


def trained(layout: Layout, method: str, variant: str = "none") -> dict[str, Tensor]:
    """Train, and return the weights after the last epoch."""
    jobs = ExperimentJobs.open(layout, variant, SETTINGS.sources)
    job = jobs.make_job(SETTINGS, train__method=method, train__variant=variant)
    return jobs.train(job, lambda _row: None).state()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def layouts(tiles: Path, table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, ...]:
    """The same tiles three times: unchanged, with inverted and with permuted target labels."""
    tables = (table, *(changed(table, SETTINGS.target, change) for change in (turned_around, permuted)))
    return tuple(from_manifest(tiles, each, tmp_path_factory.mktemp("data")) for each in tables)


@pytest.mark.parametrize(
    ("method", "variant"),
    [
        ("dann", "none"),
        pytest.param("dann", "reinhard", marks=pytest.mark.slow),
        pytest.param("erm", "none", marks=pytest.mark.slow),
        ("cdan_mcc", "none"),
        pytest.param("mdd", "none", marks=pytest.mark.slow),
        pytest.param("dann_multi", "none", marks=pytest.mark.slow),
        pytest.param("self_training", "none", marks=pytest.mark.slow),
        pytest.param("adabn", "none", marks=pytest.mark.slow),
        pytest.param("dann_mcc_orient", "none", marks=pytest.mark.slow),
        ("anchored", "none"),
    ],
)
def test_trained_weights_do_not_depend_on_target_labels(layouts: tuple[Layout, ...], method: str, variant: str) -> None:
    first, *others = (trained(layout, method, variant) for layout in layouts)
    assert [same(first, other) for other in others] == [True, True]


def test_folders_spell_labels_in_paths_and_still_do_not_matter(tiles: Path, tmp_path: Path) -> None:
    """Each target tile moves to the other label's folder under the same file name."""
    weights = []
    for turned in (False, True):
        layout = Layout(tmp_path / str(turned))
        data = layout.folder / "tiles"
        shutil.copytree(tiles, data, ignore=shutil.ignore_patterns("*.csv"))
        if turned:
            (data / "kidney" / LABELS[0]).rename(data / "kidney" / "other")
            (data / "kidney" / LABELS[1]).rename(data / "kidney" / LABELS[0])
            (data / "kidney" / "other").rename(data / "kidney" / LABELS[1])
        ingest(replace_values(SETTINGS, {"ingest.adapter": "folder"}).ingest, data, layout.tiles, base=layout.folder)
        weights.append(trained(split_and_pack(layout), "dann"))
    assert same(*weights)


def test_source_labels_do_matter(layouts: tuple[Layout, ...], tiles: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    """Without this, the tests above would also pass if nothing were trained at all."""
    other = from_manifest(tiles, changed(table, "lung", turned_around), tmp_path)
    assert not same(trained(layouts[0], "erm"), trained(other, "erm"))
