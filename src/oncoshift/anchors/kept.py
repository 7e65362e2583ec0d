"""Plain measures of the tiles of a pack: measured group by group, once, and kept on disk.

A file is named by the hash of what decides its content (pack, groups, code, and a map of epithelium
if there is one) and ends with a digest of its bytes.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.anchors.epithelium import measure_epithelium
from oncoshift.anchors.measures import MEASURES, measure_group
from oncoshift.anchors.registry import ANCHORS
from oncoshift.anchors.values import LIBRARIES, identify_anchor, part_group
from oncoshift.files import atomic, hold_lock, is_intact, seal
from oncoshift.fingerprint import fingerprint_code
from oncoshift.parallel import map_in_order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.data.tables import Images
    from oncoshift.parallel import Progress
    from oncoshift.settings.training import AnchorSettings

EPITHELIUM = "epithelium ÷ tissue"
"""The measure that `anchor.epithelium` adds."""


def measure_once(
    images: Images,
    groups: Sequence[NDArray[np.int64]],
    epithelium: AnchorSettings | None,
    folder: Path,
    pack_digest: str,
    on_progress: Progress,
) -> pd.DataFrame:
    """Measure some groups of a pack, or read what was measured before.

    Args:
        images: the pack, uint8 [M, S, S, 3].
        groups: the rows of each group, int64 [N].
        epithelium: section `anchor`, whose map of epithelium is to be used too; None: without one.
        folder: where measures are kept.
        pack_digest: content hash of the pack.
        on_progress: called with groups done and groups in all.

    Returns:
        Indexed by row of the pack, in the order of `groups`: a column for each of `MEASURES`, and
        `EPITHELIUM` with a map.

    Raises:
        SettingsError: `anchor.epithelium` cannot be used.
    """
    columns = [*MEASURES, *([EPITHELIUM] if epithelium else [])]
    path = folder / f"measures-{_compute_key(groups, epithelium, pack_digest)}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path.with_suffix(".lock")):
        if is_intact(path, "the tiles are measured again"):
            values = np.load(path)
            on_progress(len(groups), len(groups))
        else:
            values = np.concatenate(map_in_order(lambda rows: _measure(images, rows, epithelium), groups, on_progress))
            with atomic(path) as temporary:
                with temporary.open("wb") as file:
                    np.save(file, values)
                seal(temporary)
    return pd.DataFrame(values, index=np.concatenate(groups), columns=columns)


def _measure(images: Images, rows: NDArray[np.int64], epithelium: AnchorSettings | None) -> NDArray[np.float64]:
    """Measure the tiles of one group, a large one in parts; float64 [N, measures]."""
    parts = part_group(np.arange(len(rows)))
    values = np.concatenate([_measure_part(images, rows[part], epithelium) for part in parts])
    return values[np.argsort(np.concatenate(parts))]


def _measure_part(images: Images, rows: NDArray[np.int64], epithelium: AnchorSettings | None) -> NDArray[np.float64]:
    tiles = np.asarray(images[rows])
    found = measure_group(tiles).to_numpy(np.float64)
    return found if epithelium is None else np.column_stack([found, measure_epithelium(tiles, epithelium)])


def _compute_key(groups: Sequence[NDArray[np.int64]], epithelium: AnchorSettings | None, pack_digest: str) -> str:
    modules, read = ["oncoshift.anchors.measures"], {}
    if epithelium is not None:
        row = ANCHORS["epithelium"]
        modules.append(row.measure.partition(":")[0])
        read = {key: value for key, value in identify_anchor(epithelium).items() if key in row.reads}
    digest = hashlib.sha256(json.dumps([pack_digest, read, fingerprint_code(*modules, libraries=LIBRARIES)]).encode())
    for rows in groups:
        digest.update(json.dumps(rows.tolist()).encode())
    return digest.hexdigest()[:32]
