"""A table with a flipped bit is refused, never misread."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from oncoshift.data.parquet import read_table, write_table
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

TABLE = pd.DataFrame({"tile_id": [f"tile-{row}" for row in range(40)], "label": [row % 2 for row in range(40)]})


def test_no_flipped_bit_changes_a_table(tmp_path: Path) -> None:
    path = tmp_path / "tiles.parquet"
    write_table(TABLE, path)
    good = path.read_bytes()
    refused = 0
    for position in range(0, len(good), 7):
        data = bytearray(good)
        data[position] ^= 1
        path.write_bytes(data)
        try:
            table = read_table(path, list(TABLE.columns), stage="ingest")
        except DataError:
            refused += 1
        else:
            pd.testing.assert_frame_equal(table, TABLE)
    assert refused > len(good) / 7 / 2, "the others are in what nobody reads"


def test_a_table_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Failed to open local file")  # without its name, as pyarrow does

    write_table(TABLE, tmp_path / "tiles.parquet")
    monkeypatch.setattr("pyarrow.parquet.read_schema", refuse)
    with pytest.raises(DataError, match=r"tiles\.parquet: no permission to read it; change its permissions$"):
        read_table(tmp_path / "tiles.parquet", list(TABLE.columns), stage="ingest")
