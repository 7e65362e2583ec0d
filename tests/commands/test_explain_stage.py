"""What stage `explain` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import Mock

import pandas as pd

from oncoshift import stages
from oncoshift.layout import Layout
from oncoshift.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_no_name_in_its_table_is_a_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"tile_id": ["=1+1_2.png", "a.png"], "group": ["=1+1", "a"], "called": [0, 1]})
    jobs = Mock(explain=Mock(return_value=Mock(table=table, as_dict=dict)))
    monkeypatch.setattr(stages, "_trained", lambda *_: (jobs, Mock(), Mock()))
    stages.explain(Layout(tmp_path), Settings())
    written = Layout(tmp_path).outputs / "explain" / "integrated_gradients.csv"
    assert written.read_text().splitlines() == ["tile_id,group,called", "./=1+1_2.png,'=1+1,0", "a.png,a,1"]
