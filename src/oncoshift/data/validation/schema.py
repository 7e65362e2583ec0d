"""The schema of tiles.parquet, checked when it is written and when stage `split` reads it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from oncoshift.data.tables import ORGAN
from oncoshift.errors import DataError
from oncoshift.serving.scale import SCALES

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa

_SHOWN = 5


def check_tiles(tiles: pd.DataFrame, where: str) -> None:
    """Refuse a table of tiles that breaks the schema.

    Args:
        tiles: with the columns `oncoshift.data.tables.TILE_COLUMNS`.
        where: the table's name, for the error.

    Raises:
        DataError: names column, row, value and what is allowed, for the first problems.
    """
    from pandera.errors import SchemaErrors

    try:
        _build_schema().validate(tiles, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        lines = [_explain(case, tiles) for case in cases.head(_SHOWN).to_dict("records")]
        more = [f"… and {len(cases) - _SHOWN} more"] if len(cases) > _SHOWN else []
        advice = "correct the data set (not this file) and run `dvc repro --force ingest`"
        raise DataError("\n".join([f"{where}: {len(cases)} problems", *lines, *more, advice])) from None


@cache
def _build_schema() -> pa.DataFrameSchema:
    # Imported here, since the training core runs without pandera.
    import pandera.pandas as pa

    filled = pa.Check.str_length(min_value=1, error="must not be empty")
    organ = pa.Check.str_matches(ORGAN, error=f"must match {ORGAN}, as in params.yaml")
    label = pa.Check.isin((-1, 0, 1), error="must be 0 (benign), 1 (malignant) or -1 (unknown)")
    digest = pa.Check.str_matches(r"^[0-9a-f]{64}$", error="must be 64 hex digits")
    size = pa.Check.gt(0, error="must be above 0")
    scale = pa.Check.in_range(*SCALES, error=f"must be from {SCALES[0]:g} to {SCALES[1]:g} µm per pixel")
    return pa.DataFrameSchema(
        {
            "tile_id": pa.Column(str, filled, unique=True),
            "path": pa.Column(str, filled),
            "organ": pa.Column(str, organ),
            "label": pa.Column("int64", label),
            "group": pa.Column(str, filled),
            "width": pa.Column("int64", size),
            "height": pa.Column("int64", size),
            "sha256": pa.Column(str, digest),
            "um_per_pixel": pa.Column("float64", scale, nullable=True, required=False),
        }
    )


def _explain(case: dict[str, object], tiles: pd.DataFrame) -> str:
    """Describe one problem in a line: column, row, value and what is allowed."""
    column = case["column"] if case["column"] is not None else case["failure_case"]
    check = str(case["check"])
    row = case["index"]
    if not isinstance(row, int | float) or row != row:  # a whole column, for example of a wrong type
        found = "" if check == "column_in_dataframe" else f", found {case['failure_case']}"
        return f"column {column}: {_phrase(check)}{found}"
    number = int(row)
    tile = tiles["tile_id"].iloc[number] if "tile_id" in tiles else "?"
    return f"column {column}, row {number} ({tile}): {case['failure_case']!r} {_phrase(check)}"


def _phrase(check: str) -> str:
    if check == "field_uniqueness":
        return "stands in two rows"
    if check == "not_nullable":
        return "is missing"
    if check == "column_in_dataframe":
        return "is not in the table"
    return f"must be of type {check[len('dtype(') : -1]}" if check.startswith("dtype(") else check
