"""The proposal of tiles: what trains cannot be proposed to judge, and no answer is lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.data.parquet import write_table
from oncoshift.files import sha256_file
from oncoshift.labels.sheet import read_rows
from oncoshift.labels.table import GATE, TRAIN
from oncoshift.layout import Layout
from oncoshift.settings import parse_settings
from oncoshift.steps.labels import propose

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
