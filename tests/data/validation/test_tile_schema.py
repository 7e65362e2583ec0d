"""A table of tiles that breaks its schema is refused with column, row and value."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from oncoshift.data.parquet import write_table
from oncoshift.data.split import run_split
from oncoshift.data.tables import TILE_COLUMNS
from oncoshift.data.validation.schema import check_tiles
from oncoshift.errors import DataError
from oncoshift.layout import Layout
from oncoshift.settings import SplitSettings


def table(**changes: Any) -> pd.DataFrame:
    names = ["a.png", "b.png", "c.png"]
    columns = {
        "tile_id": names,
        "path": names,
        "organ": ["lung", "lung", "breast-2"],
        "label": [0, 1, -1],
        "group": ["p1", "p1", "p2"],
        "width": [64, 64, 32],
        "height": [64, 64, 32],
        "sha256": ["0" * 64, "a" * 64, "f" * 64],
    }
    return pd.DataFrame(columns | changes)[list(TILE_COLUMNS)]


def test_a_sound_table_passes() -> None:
    check_tiles(table(), "tiles.parquet")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tile_id": ["a.png", "b.png", "b.png"]}, "column tile_id, row 1 (b.png): 'b.png' stands in two rows"),
        ({"organ": ["Lung", "lung", "lung"]}, "column organ, row 0 (a.png): 'Lung' must match"),
        ({"label": [0, 2, 1]}, "column label, row 1 (b.png): 2 must be 0 (benign), 1 (malignant) or -1 (unknown)"),
        ({"label": [0.0, 1.0, 1.0]}, "column label: must be of type 'int64', found float64"),
        ({"group": ["p1", "", "p2"]}, "column group, row 1 (b.png): '' must not be empty"),
        ({"group": ["p1", None, "p2"]}, "column group, row 1 (b.png): nan is missing"),
        ({"width": [64, 0, 64]}, "column width, row 1 (b.png): 0"),
        ({"height": [64, -1, 64]}, "column height, row 1 (b.png): -1"),
        ({"sha256": ["0" * 64, "0" * 63 + "G", "0" * 64]}, "column sha256, row 1 (b.png): '" + "0" * 63),
    ],
    ids=["twice", "organ", "label", "type", "empty", "missing", "width", "height", "sha256"],
)
def test_a_problem_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        check_tiles(table(**changes), "some/tiles.parquet")
    assert said in str(caught.value)
    assert str(caught.value).startswith("some/tiles.parquet: ")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="column group: is not in the table"):
        check_tiles(table().drop(columns="group"), "tiles.parquet")


def test_many_problems_are_counted_and_a_few_shown() -> None:
    rows = pd.concat([table(label=[5, 6, 7])] * 3, ignore_index=True)
    rows["tile_id"] = [str(number) for number in range(len(rows))]
    with pytest.raises(DataError, match="9 problems") as caught:
        check_tiles(rows, "tiles.parquet")
    assert "and 4 more" in str(caught.value)


def test_stage_split_refuses_a_table_that_was_edited(tmp_path: Any) -> None:
    layout = Layout(tmp_path)
    write_table(table(label=[0, 3, 1]), layout.tiles / "tiles.parquet")
    with pytest.raises(DataError, match=r"tiles\.parquet: 1 problems\ncolumn label, row 1 \(b\.png\): 3"):
        run_split(SplitSettings(), "kidney", ("lung",), layout)
