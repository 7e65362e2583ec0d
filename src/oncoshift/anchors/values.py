"""Anchors of the tiles of a pack: measured group by group, once, and kept on disk.

A file is named by the hash of what decides its content (pack, groups, anchor, its settings and
code) and ends with a digest of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.anchors.registry import ANCHORS
from oncoshift.files import atomic, hold_lock, is_intact, seal
from oncoshift.fingerprint import fingerprint_code, fingerprint_weights
from oncoshift.parallel import map_in_order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.data.tables import Images
    from oncoshift.settings.training import AnchorSettings

_log = logging.getLogger(__name__)
LIBRARIES = ("numpy", "opencv-python", "scikit-image")
"""Libraries whose versions affect the values."""

LARGEST_GROUP = 512
"""Tiles of a group that are measured together; a larger one is measured in parts of this size."""


def measure_anchor(
    name: str,
    images: Images,
    groups: NDArray[np.int64] | None,
    settings: AnchorSettings,
    folder: Path,
    pack_digest: str,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Measure an anchor of a pack's tiles, or read what was measured before.

    Args:
        name: of the anchor in `ANCHORS`.
        images: the pack, uint8 [M, S, S, 3].
        groups: int64 [M], numbers of the rows' groups; None: each tile is one of its own.
        settings: section `anchor`.
        folder: where anchors are kept.
        pack_digest: content hash of the pack.
        rows: of the tiles to measure, int64 [N]; None: all. A tile's value depends on its group, so
            whole groups are measured, and no others.

    Returns:
        float64 [N], or [M] of all tiles, as the anchor measures it.

    Raises:
        SettingsError: a file that the settings name cannot be used.
    """
    rows = np.arange(len(images)) if rows is None else rows
    wanted = np.isin(np.arange(len(images)), rows)
    parted = [part for part in _part(len(images), groups) if wanted[part].any()]
    path = folder / f"{name}-{_compute_key(name, parted, settings, pack_digest)}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path.with_suffix(".lock")):
        kept = _read(path)
        if kept is not None:
            return kept[rows]
        values = _measure(name, images, parted, settings)
        with atomic(path) as temporary:
            with temporary.open("wb") as file:
                np.save(file, values)
            seal(temporary)
    return values[rows]


def split_by_group(groups: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split rows 0 … N − 1 by the numbers of their groups, [N]; each group keeps its order."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def part_group(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Part a group's rows [N] into parts of at most `LARGEST_GROUP`, each taken from all of them.

    Rows stand in the order of paths, often that of labels.
    """
    count = -(-len(rows) // LARGEST_GROUP)
    return [rows[first::count] for first in range(count)]


def standardise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring values [N] to mean 0 and standard deviation 1; all 0 if they are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def combine(anchors: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Combine anchors [N] of the same tiles of one organ into one, standardised: their mean."""
    return standardise(np.mean([standardise(each) for each in anchors], axis=0))


def describe_anchor(settings: AnchorSettings) -> str:
    """Describe the anchors in use in one line, a user's file by name and digest."""
    told = settings.epithelium and f"epithelium ({settings.epithelium.rpartition('/')[2]}, {_identify(settings)[:12]})"
    return " + ".join(str(told) if name == "epithelium" else name for name in settings.use)


def identify_anchor(settings: AnchorSettings) -> dict[str, object]:
    """Return the settings with a file's content in place of its path, for hashes."""
    return {**settings.model_dump(mode="json"), "epithelium": _identify(settings)}


def _identify(settings: AnchorSettings) -> str:
    return fingerprint_weights(settings.epithelium) if settings.epithelium else ""


def _part(count: int, groups: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    """Part rows 0 … count − 1 by group, large groups further."""
    if groups is None:
        return [np.array([row]) for row in range(count)]
    return [part for rows in split_by_group(groups) for part in part_group(rows)]


def _measure(
    name: str, images: Images, parted: Sequence[NDArray[np.int64]], settings: AnchorSettings
) -> NDArray[np.float64]:
    _log.info("anchor %s: %d tiles of %d groups to measure", name, sum(map(len, parted)), len(parted))
    measure = resolve_name(ANCHORS[name].measure)
    values = np.full(len(images), np.nan)

    def measure_part(rows: NDArray[np.int64]) -> None:
        values[rows] = measure(np.asarray(images[rows]), settings)

    map_in_order(measure_part, parted)
    return values


def _read(path: Path) -> NDArray[np.float64] | None:
    """Read a file, or return None if it is missing or damaged."""
    return np.load(path) if is_intact(path, "the anchor is measured again") else None


def _compute_key(name: str, parted: Sequence[NDArray[np.int64]], settings: AnchorSettings, pack_digest: str) -> str:
    row = ANCHORS[name]
    read = {key: value for key, value in identify_anchor(settings).items() if key in row.reads}
    code = fingerprint_code(row.measure.partition(":")[0], libraries=LIBRARIES)
    digest = hashlib.sha256(json.dumps([pack_digest, read, code]).encode())
    for rows in parted:
        digest.update(json.dumps(rows.tolist()).encode())
    return digest.hexdigest()[:32]
