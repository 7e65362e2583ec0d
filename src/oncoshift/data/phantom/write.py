"""The phantom as a folder data set: tiles, masks of their nuclei, and a note that all of it is made up.

root/<organ>/<benign|malignant>/<organ>-<b|m><group>_<tile>.png    root/masks/… the same, 1 bit    root/PHANTOM.txt
"""

from __future__ import annotations

import json
import shutil
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from oncoshift.data.phantom.organs import draw_style, organ_named
from oncoshift.data.phantom.render import render_tile
from oncoshift.data.tables import LABELS
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oncoshift.settings import Phantom

NOTE = "PHANTOM.txt"
_WORDS = "Made-up data: procedural H&E tissue, drawn by oncoshift. No patient, no tissue. Parameters:"


def write_phantom(settings: Phantom, root: Path, progress: Callable[[int, int], None] | None = None) -> bool:
    """Write the data set, whole or not at all.

    Each tile's random numbers come from the seed and the tile's place alone, so its bytes depend neither on the order
    nor on how many others there are.

    Args:
        settings: section `phantom`.
        root: folder of the data set; a phantom with other parameters is replaced.
        progress: called with tiles done and in all.

    Returns:
        Whether anything was written; False where the same data set is there already.

    Raises:
        DataError: `root` holds something that is no phantom.
        SettingsError: the phantom has no such organ.
    """
    note = f"{_WORDS}\n{json.dumps(settings.model_dump(mode='json'), indent=1)}\n"
    if root.exists() and any(root.iterdir()):
        if not (root / NOTE).is_file():
            raise DataError(f"{root}: holds files that are no phantom; choose another ingest.root, or move them away")
        if (root / NOTE).read_text(encoding="utf-8") == note:
            return False
    for organ in settings.organs:
        organ_named(organ)
    temporary = root.with_name(f".{root.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    total = len(settings.organs) * len(LABELS) * settings.groups_per_class * settings.tiles_per_group
    done = 0
    for organ in settings.organs:
        for label in range(len(LABELS)):
            for group in range(settings.groups_per_class):
                done += _write_group(settings, temporary, organ, label, group)
                if progress is not None:
                    progress(done, total)
    (temporary / NOTE).write_text(note, encoding="utf-8")
    shutil.rmtree(root, ignore_errors=True)
    temporary.replace(root)
    return True


def _write_group(settings: Phantom, root: Path, organ: str, label: int, group: int) -> int:
    """Write one patient's tiles; how many."""
    place = (settings.seed, zlib.crc32(organ.encode()), label, group)
    style = draw_style(np.random.default_rng(np.random.SeedSequence([*place, 0])))
    tiles, masks = root / organ / LABELS[label], root / "masks" / organ / LABELS[label]
    for folder in (tiles, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(settings.tiles_per_group):
        rng = np.random.default_rng(np.random.SeedSequence([*place, number + 1]))
        tile = render_tile(organ, bool(label), style, rng, settings.tile_size)
        name = f"{organ}-{LABELS[label][0]}{group:03d}_{number:02d}.png"
        Image.fromarray(tile.image).save(tiles / name)
        Image.fromarray(tile.nuclei).save(masks / name)
    return settings.tiles_per_group
