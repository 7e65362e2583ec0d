"""The labels of a target that were applied: a table, kept as a CSV that DVC versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from oncoshift.data.csv_file import write_csv
from oncoshift.data.tables import LABELS
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TRAIN, GATE = "train", "gate"
USES = (TRAIN, GATE)
"""The uses of a label: to train a method that reads labels, or to judge models."""

SKIP = "skip"
WORDS = (*LABELS, SKIP)
"""The words for a tile: its class, or that it shows neither and is not to be asked for again."""

OF_PRIOR = "of the model before labels corrected it"
"""What a figure of the sources is of where labels of the target corrected the model: they say
nothing about the sources."""

COLUMNS = ("tile_id", "group", "use", "label", "sha256")
"""tile_id and sha256: as in tiles.parquet. group: of the tile. use: one of `USES`. label: one of
`WORDS`."""


def locate_labels(folder: Path, target: str) -> Path:
    """Return the path of a target's labels in `Layout.labels`."""
    return folder / f"{target}.csv"


def read_labels(folder: Path, target: str) -> pd.DataFrame:
    """Read the labels of a target, with the columns `COLUMNS`; none where none were applied.

    Raises:
        DataError: the file is not as `write_labels` writes it, a group has both uses, or the file
            is gone and DVC has it.
    """
    path = locate_labels(folder, target)
    if not path.is_file():
        pointer = path.with_name(f"{path.name}.dvc")
        if pointer.is_file():
            raise DataError(f"{path}: is gone, and DVC has it; run `dvc checkout {pointer}` (`dvc pull` from a remote)")
        return pd.DataFrame(columns=list(COLUMNS), dtype=object)
    try:
        table = pd.read_csv(path, dtype=object, keep_default_na=False, encoding="utf-8")
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors, as are broken encodings
        raise DataError(f"{path}: cannot be read ({error}); {_advise(path)}") from None
    if tuple(table.columns) != COLUMNS:
        raise DataError(f"{path}: has not the columns {', '.join(COLUMNS)}; {_advise(path)}")
    check_labels(table, path)
    return table


def _advise(path: Path) -> str:
    return f"restore it by `dvc checkout {path}.dvc`"


def check_labels(table: pd.DataFrame, path: Path) -> None:
    """Check words and uses of a table with the columns `COLUMNS`.

    Raises:
        DataError: a word is unknown, a tile stands there twice, or a group has both uses.
    """
    for column, words in (("use", USES), ("label", WORDS)):
        strange = sorted(set(table[column]) - set(words))
        if strange:
            raise DataError(f"{path}: {column} {strange[0]!r} is none of {', '.join(words)}; {_advise(path)}")
    twice = table.loc[table["tile_id"].duplicated(), "tile_id"]
    if len(twice):
        raise DataError(f"{path}: {twice.iloc[0]} stands there twice; {_advise(path)}")
    uses = table.groupby("group")["use"].nunique()
    both = uses.index[uses > 1]
    if len(both):
        raise DataError(
            f"{path}: group {both[0]} trains and gates, and a label that trains cannot judge; {_advise(path)}"
        )


def write_labels(folder: Path, target: str, table: pd.DataFrame) -> Path:
    """Write labels, ordered by tile, so that equal labels are equal bytes; return the path."""
    path = locate_labels(folder, target)
    check_labels(table, path)
    write_csv(path, COLUMNS, table.sort_values("tile_id")[list(COLUMNS)].itertuples(index=False, name=None))
    return path


def describe_labels(figures: Mapping[str, float]) -> str:
    """Describe the labels that trained a model, from the figures of its training.

    Returns:
        For example "10 (4 benign, 6 malignant)"; empty for a model that was trained without any.
    """
    counts = [int(figures.get(f"{name}_labels", 0)) for name in LABELS]
    named = ", ".join(f"{count} {name}" for count, name in zip(counts, LABELS, strict=True))
    return f"{sum(counts)} ({named})" if any(counts) else ""


def select_labels(table: pd.DataFrame, use: str) -> pd.DataFrame:
    """Select the rows of one use that name a class."""
    return table[(table["use"] == use) & (table["label"] != SKIP)].reset_index(drop=True)
