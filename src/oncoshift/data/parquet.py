"""Reading and writing the stages' tables: atomic, checksummed, and equal bytes for equal rows."""

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
    """Write the rows in the frame's order, without its index."""
    # The metadata of pandas contains library versions, which would change the hash that DVC takes.
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_table(path: Path, columns: Sequence[str], stage: str) -> pd.DataFrame:
    """Read some columns of a table.

    Args:
        path: the parquet file.
        columns: the columns, all of them required.
        stage: the stage that writes the file, for the error.

    Raises:
        DataError: the file or a column is missing, or the file is unreadable or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; run `oncoshift {stage}` or `dvc repro {stage}` first")
    try:
        missing = sorted(set(columns) - set(pq.read_schema(path).names))
        if missing:
            raise DataError(f"{path}: lacks the columns {', '.join(missing)}; run `dvc repro --force {stage}`")
        frame: pd.DataFrame = pq.read_table(path, columns=list(columns), page_checksum_verification=True).to_pandas()
    except PermissionError:
        raise DataError(f"{path}: no permission to read it; change its permissions") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: is damaged ({reason}); run `dvc repro --force {stage}`") from error
    return frame
