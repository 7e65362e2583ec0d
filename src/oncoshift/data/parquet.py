"""Reading and writing the stages' tables: whole or not at all, the same bytes for the same rows, and with checksums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from oncoshift.errors import DataError
from oncoshift.files import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write rows in the frame's order; its index is dropped."""
    # pandas' own metadata would put library versions into bytes that DVC hashes.
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_table(path: Path, columns: Sequence[str], stage: str) -> pd.DataFrame:
    """Read some columns of a table.

    Args:
        path: the parquet file.
        columns: which columns, all of them required.
        stage: the stage that writes the file, for the error.

    Raises:
        DataError: the file or a column is missing, or the file may not be read or is damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; run `oncoshift {stage}` or `dvc repro {stage}` first")
    try:
        missing = sorted(set(columns) - set(pq.read_schema(path).names))
        if missing:
            raise DataError(f"{path}: lacks the columns {', '.join(missing)}; run `dvc repro --force {stage}`")
        frame: pd.DataFrame = pq.read_table(path, columns=list(columns), page_checksum_verification=True).to_pandas()
    except PermissionError:
        raise DataError(f"{path}: may not be read; give yourself the right to it") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: is damaged ({reason}); run `dvc repro --force {stage}`") from error
    return frame
