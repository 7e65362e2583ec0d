"""Stage `explain` writes a table that a spreadsheet opens safely."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import Mock

import pandas as pd

from oncoshift.steps.explain import ExplainedModel
from oncoshift.steps.recorder import FolderRecorder

if TYPE_CHECKING:
    from pathlib import Path


def test_no_name_in_its_table_is_a_formula(tmp_path: Path) -> None:
    table = pd.DataFrame({"tile_id": ["=1+1_2.png", "a.png"], "group": ["=1+1", "a"], "called": [0, 1]})
    folder = tmp_path / "outputs" / "explain"
    ExplainedModel(Mock(), Mock(table=table, as_dict=dict)).record(FolderRecorder(folder))
    written = folder / "integrated_gradients.csv"
    assert written.read_text().splitlines() == ["tile_id,group,called", "./=1+1_2.png,'=1+1,0", "a.png,a,1"]
