"""The proposal of tiles: what trains cannot be proposed to judge, and no answer is lost."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.data.parquet import write_table
from oncoshift.errors import DataError
from oncoshift.files import sha256_file, write_json
from oncoshift.labels.sheet import read_rows, write_rows
from oncoshift.labels.table import COLUMNS, GATE, TRAIN, write_labels
from oncoshift.layout import Layout
from oncoshift.settings import parse_settings
from oncoshift.steps.labels import SHEET, propose, read_sheet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GROUPS = tuple("abcdefgh")
SHARED = {"a", "c", "e", "g"}
"""Groups that have tiles in a source, too."""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An experiment with a tile of each group in the target's training split."""
    layout = Layout(tmp_path)
    for folder in (layout.tiles, layout.splits, layout.labels, tmp_path / "raw"):
        folder.mkdir(parents=True)
    paths = [f"raw/{group}.png" for group in GROUPS]
    for number, path in enumerate(paths):
        Image.fromarray(tissue(number)).save(tmp_path / path)
    tiles = {"tile_id": paths, "path": paths, "sha256": [sha256_file(tmp_path / path) for path in paths]}
    write_table(pd.DataFrame(tiles), layout.tiles / "tiles.parquet")
    write_table(pd.DataFrame({"tile_id": paths, "group": GROUPS}), layout.splits / "target_train.parquet")
    for name, groups in (("source_train", ["a", "c", "x"]), ("source_val", ["e", "g"])):
        write_table(pd.DataFrame({"group": groups}), layout.splits / f"{name}.parquet")
    return layout


def run(layout: Layout, counts: dict[str, int], training: Callable[[], object] = lambda: None) -> Path:
    """Propose tiles; `training` is done while the prior trains. Returns the CSV."""
    jobs: Any = SimpleNamespace(
        layout=layout,
        make_job=lambda _settings, **_: SimpleNamespace(id="prior"),
        train=lambda _job, _hook: training(),
        predict_target=lambda _trained: np.linspace(0, 1, len(GROUPS)),
    )
    out = layout.folder / "sheet"
    return propose(jobs, parse_settings({}), counts, out, layout.folder, lambda _line: None).path


def test_a_group_that_has_tiles_in_a_source_never_gates(layout: Layout) -> None:
    rows = read_rows(run(layout, {TRAIN: 4, GATE: 4}))
    assert {row.group for row in rows if row.use == TRAIN} >= SHARED
    gating = {row.group for row in rows if row.use == GATE}
    assert gating
    assert not gating & SHARED


def answer(path: Path, label: str) -> None:
    """Give the first row a label, as the local page does."""
    first, *rest = read_rows(path)
    write_rows(path, [replace(first, label=label), *rest])


def test_an_answer_that_came_while_the_prior_trained_is_not_lost(layout: Layout) -> None:
    path = run(layout, {TRAIN: 2, GATE: 2})
    with pytest.raises(DataError, match="has 1 answers that were not applied"):
        run(layout, {TRAIN: 2, GATE: 2}, lambda: answer(path, "benign"))
    assert read_rows(path)[0].label == "benign"


def test_an_answer_that_differs_from_the_applied_one_is_not_lost(layout: Layout) -> None:
    path = run(layout, {TRAIN: 2, GATE: 2})
    row = read_rows(path)[0]
    applied = pd.DataFrame([(row.tile_id, row.group, row.use, "benign", row.sha256)], columns=list(COLUMNS))
    write_labels(layout.labels, "kidney", applied)
    answer(path, "malignant")
    with pytest.raises(DataError, match="has 1 answers that were not applied"):
        run(layout, {TRAIN: 2, GATE: 2})
    answer(path, "benign")
    run(layout, {TRAIN: 2, GATE: 2})


def test_a_sheet_names_an_organ_and_no_path(layout: Layout) -> None:
    path = run(layout, {TRAIN: 2, GATE: 2})
    write_json(path.parent / SHEET, {"target": "../kidney", "experiment": "."})
    with pytest.raises(DataError, match=r"target '\.\./kidney' is no name of an organ"):
        read_sheet(path)
