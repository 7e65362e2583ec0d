"""A table of which a bit has flipped is refused, and never read as another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

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
            table = read_table(path, list(TABLE), stage="ingest")
        except DataError:
            refused += 1
        else:
            pd.testing.assert_frame_equal(table, TABLE)
    assert refused > len(good) / 7 / 2, "the others are in what nobody reads"
