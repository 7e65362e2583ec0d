"""The scores of a folder of Parquet parts, which a killed process continues where it stopped.

    scores.parquet/
        _scores.json         the model and the input; readers of Parquet ignore names with `_`
        part-000000.parquet  rows with the columns of `SCHEMA`, each part written whole

A tile's row is in one part. The names in the parts tell what is done, so nothing else is recorded,
and neither a lost nor a repeated row can follow from a kill between two writes.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oncoshift.errors import DataError
from oncoshift.files import DamagedFileError, atomic, hold_lock, read_json, sweep, write_json, writing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from oncoshift.registry.loading import ModelIdentity

MANIFEST = "_scores.json"

SCHEMA = pa.schema(
    [
        ("tile", pa.string()),
        ("group", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("shift", pa.float64()),
        ("abstain", pa.string()),
        ("error", pa.string()),
        ("scale", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("digest", pa.string()),
    ]
)
"""probability: of malignancy. shift: percentile of the distance from the training organs. abstain:
null, or why the model gives no label. error: null, or why the tile could not be scored. scale:
null, or whether the tile was resampled to the model's scale. model, version, digest: the model that
scored the tile; a model in a folder has no version."""


@dataclass(frozen=True)
class Totals:
    """What all parts contain.

    Attributes:
        tiles: number of rows.
        malignant: tiles labelled malignant.
        benign: tiles labelled benign.
        abstained: tiles with a reason to abstain.
        errors: tiles that could not be scored.
        shift_median: median of `shift`; None if no tile has one.
        shift_high: 90th percentile of `shift`; None if no tile has one.
    """

    tiles: int
    malignant: int
    benign: int
    abstained: int
    errors: int
    shift_median: float | None
    shift_high: float | None

    def to_words(self) -> str:
        """Describe the totals in a line."""
        words = [f"{self.malignant} malignant", f"{self.benign} benign"]
        words += [f"{self.abstained} with a reason to abstain"] if self.abstained else []
        words += [] if self.shift_median is None else [f"median shift {self.shift_median:.0f} of 100"]
        return ", ".join(words)


@dataclass(frozen=True)
class Scores:
    """The opened output.

    Attributes:
        folder: the folder of the parts.
        model: the model that scores.
        started: when the first process started, ISO 8601.
    """

    folder: Path
    model: ModelIdentity
    started: str

    def list_done(self) -> frozenset[str]:
        """List the names of the tiles that have a row.

        Raises:
            DataError: a part is damaged, or a tile has two rows.
        """
        done: set[str] = set()
        for part in self._list_parts():
            names = _read_part(part, ["tile"]).column("tile").to_pylist()
            before = len(done)
            done.update(names)
            if len(done) < before + len(names):
                raise DataError(f"{part}: repeats tiles of earlier parts; remove it, and run it again")
        return frozenset(done)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one more part."""
        parts = self._list_parts()
        number = int(parts[-1].stem.rpartition("-")[2]) + 1 if parts else 0
        same = {"model": self.model.name, "version": self.model.version, "digest": self.model.digest}
        table = pa.Table.from_pylist([{**row, **same} for row in rows], schema=SCHEMA)
        # Through Python's file, whose error says that the disk is full.
        with atomic(self.folder / f"part-{number:06d}.parquet") as temporary, temporary.open("wb") as file:
            pq.write_table(table, file, write_page_checksum=True)

    def sum_up(self) -> Totals:
        """Count what the parts contain, one part at a time.

        Raises:
            DataError: a part is damaged.
        """
        labels: Counter[str] = Counter()
        tiles = abstained = errors = 0
        shifts = []
        for part in self._list_parts():
            table = _read_part(part, ["label", "shift", "abstain", "error"])
            tiles += table.num_rows
            labels.update(table.column("label").drop_null().to_pylist())
            abstained += table.num_rows - table.column("abstain").null_count
            errors += table.num_rows - table.column("error").null_count
            shifts.append(table.column("shift").drop_null().to_numpy().astype(np.float32))
        shift = np.concatenate([np.empty(0, np.float32), *shifts])
        median, high = (float(each) for each in np.percentile(shift, [50, 90])) if len(shift) else (None, None)
        return Totals(tiles, labels["malignant"], labels["benign"], abstained, errors, median, high)

    def _list_parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))


@contextmanager
def open_scores(folder: Path, model: ModelIdentity, source: Path) -> Iterator[Scores]:
    """Make the output, or continue that of an earlier process; one process at a time.

    Args:
        folder: the output.
        model: the model that scores.
        source: the input.

    Raises:
        DataError: the folder holds something else, or scores of another model or input; another
            process is writing to it; or the disk is full.
    """

    def busy() -> DataError:
        return DataError(f"{folder}: another process is writing scores to it; wait until it is done, or end it")

    _refuse_foreign(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(folder, busy):
            sweep(folder)
            yield Scores(folder, model, _begin(folder, model, source))


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise DataError(
            f"{folder}: is a file; --out names a folder of Parquet parts, so give another name or remove it"
        )
    if folder.is_dir() and not (folder / MANIFEST).is_file():
        found = next((path.name for path in sorted(folder.iterdir()) if not path.name.startswith(".")), None)
        if found is not None:
            raise DataError(f"{folder}: holds {found} and no scores; give --out a new or an empty folder")


def _begin(folder: Path, model: ModelIdentity, source: Path) -> str:
    """Record the model and the input, or check that they are those of the earlier process."""
    now = {"model": model._asdict(), "input": str(source.resolve())}
    try:
        before = read_json(folder / MANIFEST, "model", "input", "started")
    except FileNotFoundError:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(folder / MANIFEST, {**now, "started": started})
        return started
    except DamagedFileError as error:
        raise DataError(f"{error}; give another --out, or remove the folder to score all tiles again") from None
    if before["model"]["digest"] != model.digest:
        raise DataError(
            f"{folder}: holds scores of {_describe(before['model'])}, not of {_describe(now['model'])}; "
            "give another --out, or remove it"
        )
    if before["input"] != now["input"]:
        raise DataError(f"{folder}: holds scores of {before['input']}, not of {now['input']}; give another --out")
    return str(before["started"])


def _describe(model: Any) -> str:
    version = f" version {model['version']}" if model["version"] else ""
    return f"{model['name']}{version} (digest {model['digest'][:12]})"


def _read_part(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, page_checksum_verification=True, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: damaged ({reason}); remove it, and run it again to score its tiles") from error
