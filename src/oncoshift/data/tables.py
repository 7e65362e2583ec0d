"""The tables that the data stages write, and the types that training receives.

`tiles.parquet` (stage ingest) has the columns in `TILE_COLUMNS`. Each split file (stage split) has
the columns tile_id, organ, group and, except `target_train`, label. So target labels cannot reach
training: `TargetTiles` has no field for them. Labels that a person gave for training
(`oncoshift.labels`) are apart, in `TrainingData.labels`, which only methods that read them get.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from oncoshift.errors import DataError
from oncoshift.fingerprint import fingerprint_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LABELS = ("benign", "malignant")
"""Names of the classes, by number."""

UNKNOWN = -1
"""The number of an unknown label."""

ORGAN = r"^[a-z][a-z0-9_-]*$"
"""Pattern of an organ's name; the same as settings.Organ, so that settings can name each organ."""

TILE_COLUMNS = ("tile_id", "path", "organ", "label", "group", "width", "height", "sha256")
"""tile_id: the path below the data set's root, unique. path: absolute or relative to the
experiment. label: 0, 1 or -1 for unknown. group: patient, slide or original; never split. sha256:
of the file's bytes."""

SCALE = "um_per_pixel"
"""A further column of tiles.parquet if any tile declares its scale; null for the others."""


class Images(Protocol):
    """Tiles by row: a pack's `ShardedImages`, or an array uint8 [M, S, S, 3]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """M, S, S, 3."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]:
        """Return the tile of a row, uint8 [S, S, 3], or tiles [N, S, S, 3] of rows int64 [N]."""
        ...


@dataclass(frozen=True)
class SourceTiles:
    """Labelled tiles of the source organs.

    Attributes:
        images: uint8 [M, S, S, 3], the whole pack.
        rows: int64 [N], this split's rows in `images`.
        labels: int64 [N], 0 benign, 1 malignant.
        organs: int64 [N], index into `organ_names`.
        organ_names: the source organs, in the settings' order.
    """

    images: Images
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    organs: NDArray[np.int64]
    organ_names: tuple[str, ...]

    def only(self, organs: Sequence[str]) -> SourceTiles:
        """Select the tiles of some organs, which are numbered in the order given.

        Raises:
            DataError: one of them has no tiles.
        """
        wanted = tuple(organs)
        absent = [organ for organ in wanted if organ not in self.organ_names]
        if absent:
            raise DataError(
                f"no source tiles of {', '.join(absent)}; there are {', '.join(self.organ_names)}: name the organs in "
                "`sources` and run `dvc repro split`"
            )
        numbers = np.array([wanted.index(name) if name in wanted else -1 for name in self.organ_names])[self.organs]
        kept = numbers >= 0
        return SourceTiles(self.images, self.rows[kept], self.labels[kept], numbers[kept], wanted)


@dataclass(frozen=True)
class TargetTiles:
    """Tiles of the target organ, as training sees them: no labels.

    Attributes:
        images: uint8 [M, S, S, 3], the whole pack.
        rows: int64 [N], this split's rows in `images`.
    """

    images: Images
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class TargetLabels:
    """Labels that a person gave some of the target's training tiles, for methods that read them.

    Attributes:
        tile_ids: str [L].
        rows: int64 [L], rows of the tiles in the pack.
        labels: int64 [L], 0 benign, 1 malignant.
        groups: str [L].
    """

    tile_ids: NDArray[np.str_]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]

    @property
    def content(self) -> list[tuple[str, int]]:
        """Tiles and labels as plain values in order of the tiles, for hashes."""
        return sorted(zip(self.tile_ids.tolist(), self.labels.tolist(), strict=True))

    @property
    def digest(self) -> str:
        """Hash of the content."""
        return fingerprint_value(self.content)


@dataclass(frozen=True)
class EvaluationTiles:
    """Labelled tiles that only evaluation, explanation and the gate read.

    Attributes:
        images: uint8 [M, S, S, 3], the whole pack.
        rows: int64 [N].
        labels: int64 [N].
        organs: str [N].
        groups: str [N]; intervals resample these.
        tile_ids: str [N].
    """

    images: Images
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    organs: NDArray[np.str_]
    groups: NDArray[np.str_]
    tile_ids: NDArray[np.str_]


@dataclass(frozen=True)
class TrainingData:
    """All that a training job may see.

    Attributes:
        source: labelled tiles to train on.
        source_val: labelled tiles of other groups.
        target: tiles of the target, without labels.
        tile_ids: str [M], of the pack's rows, for messages; None: messages use row numbers.
        groups: int64 [M], numbers of the groups of the pack's rows; None: unknown.
        anchor: float64 [M], the anchor that the method reads, standardised within each organ; NaN
            for rows that are not trained on. None: there is none.
        nuclei: the same of nuclei alone, which a validator reads.
        labels: of some target tiles; None for all methods but those that read them
            (`MethodRow.reads_labels`).
    """

    source: SourceTiles
    source_val: SourceTiles
    target: TargetTiles
    tile_ids: NDArray[np.object_] | None = None
    groups: NDArray[np.int64] | None = None
    anchor: NDArray[np.float64] | None = None
    nuclei: NDArray[np.float64] | None = None
    labels: TargetLabels | None = None

    def only(self, organs: Sequence[str]) -> TrainingData:
        """Restrict the data to some of the source organs; see `SourceTiles.only`."""
        return replace(self, source=self.source.only(organs), source_val=self.source_val.only(organs))

    def names(self, rows: NDArray[np.int64]) -> str:
        """Name some rows of the pack for a message."""
        if self.tile_ids is None:
            return f"pack rows {', '.join(map(str, rows.tolist()))}"
        return ", ".join(self.tile_ids[rows])
