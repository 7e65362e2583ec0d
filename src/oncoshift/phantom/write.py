"""Writing the phantom as a folder data set, completely or not at all."""

from __future__ import annotations

import os
import re
import shutil
import zlib
from typing import TYPE_CHECKING

import numpy as np
import yaml
from PIL import Image

from oncoshift.data.source.adapters.folder import MARKER
from oncoshift.data.source.adapters.phantom import MASKS
from oncoshift.data.tables import LABELS
from oncoshift.errors import DataError
from oncoshift.phantom.render import render_tile
from oncoshift.phantom.styles import draw_style, find_organ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from oncoshift.phantom.render import PhantomTile
    from oncoshift.settings import PhantomSettings

_EDITION = 1
"""Version of the pixels; increased whenever the same settings give other pixels, so that older
folders are written again."""

_TILE_FILE_NAME = re.compile(r"[a-z]+-[bm]\d{3,}_\d{2,}\.png")

COMPRESSION = 1
"""PNG compression level: sensor noise hardly compresses, so higher levels gain next to nothing."""


def write_phantom(settings: PhantomSettings, root: Path, progress: Callable[[int, int], None] | None = None) -> bool:
    """Write the data set, unless it is there already.

    Tiles are `root/<organ>/<label>/<organ>-<b|m><group>_<tile>.png` (RGB); their nuclei are 1-bit
    PNGs of the same name below `root/masks/<organ>/<label>/`. A tile's bytes depend only on the
    seed, organ, label, group and number, not on how many others there are. A phantom with other
    parameters at `root` is replaced.

    Args:
        settings: which organs, how many groups and tiles, their size, and the seed.
        root: the folder to write; its parent is made if needed.
        progress: called after each tile with the number done and the total.

    Returns:
        Whether anything was written: False if the same data set was there.

    Raises:
        DataError: `root` holds something other than a phantom.
        SettingsError: the phantom has no such organ.
    """
    for organ in settings.organs:
        find_organ(organ)
    if is_written(settings, root):
        return False
    _refuse_foreign(root)
    unfinished = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _write_tiles(settings, unfinished, progress)
        (unfinished / MARKER).write_text(_format_notice(settings), encoding="utf-8")
        _put_in_place(unfinished, root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def render_phantom_tile(settings: PhantomSettings, organ: str, label: int, group: int, number: int) -> PhantomTile:
    """Render tile `number` of a group, as `write_phantom` writes it."""
    identity = (settings.seed, zlib.crc32(organ.encode()), label, group)
    style = draw_style(np.random.default_rng(np.random.SeedSequence((*identity, 0))))
    rng = np.random.default_rng(np.random.SeedSequence((*identity, 1 + number)))
    return render_tile(organ, bool(label), style, rng, settings.tile_size)


def _format_notice(settings: PhantomSettings) -> str:
    parameters = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    return (
        "This data set is made up. Its tiles are drawn by a program (oncoshift.phantom); no tissue, no patient\n"
        "and no slide stands behind them, and no figure measured on them says anything about real cancer.\n\n"
        f"edition: {_EDITION}\n{parameters}"
    )


def is_written(settings: PhantomSettings, root: Path) -> bool:
    """Whether the phantom of these settings and this version is at `root`.

    Raises:
        DataError: something other than a phantom is there.
    """
    try:
        return (root / MARKER).read_bytes() == _format_notice(settings).encode()
    except (FileNotFoundError, NotADirectoryError):
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DataError(
                f"{root}: holds something that is no phantom (it has no {MARKER}) and is left as it is; "
                "name an empty or a new folder as ingest.root"
            ) from None
        return False


def _list_identities(settings: PhantomSettings) -> Iterator[tuple[str, int, int, int]]:
    for organ in settings.organs:
        for label in range(len(LABELS)):
            for group in range(settings.groups_per_class):
                for number in range(settings.tiles_per_group):
                    yield organ, label, group, number


def _write_tiles(settings: PhantomSettings, folder: Path, progress: Callable[[int, int], None] | None) -> None:
    total = len(settings.organs) * len(LABELS) * settings.groups_per_class * settings.tiles_per_group
    for organ in settings.organs:
        for name in LABELS:
            (folder / organ / name).mkdir(parents=True)
            (folder / MASKS / organ / name).mkdir(parents=True)
    for done, (organ, label, group, number) in enumerate(_list_identities(settings), start=1):
        tile = render_phantom_tile(settings, organ, label, group, number)
        place = f"{organ}/{LABELS[label]}/{organ}-{LABELS[label][0]}{group:03d}_{number:02d}.png"
        Image.fromarray(tile.image).save(folder / place, compress_level=COMPRESSION)
        Image.fromarray(tile.nuclei).save(folder / MASKS / place, compress_level=COMPRESSION)
        if progress is not None:
            progress(done, total)


def _refuse_foreign(root: Path) -> None:
    """Refuse to replace files that are not part of a phantom."""
    for file in root.rglob("*"):
        if file.is_file() and file.name != MARKER and not _TILE_FILE_NAME.fullmatch(file.name):
            raise DataError(
                f"{file}: is no tile of the phantom, which other settings would replace with all that is in {root}; "
                "move your files to a folder of their own and name it as ingest.root"
            )


def _put_in_place(finished: Path, root: Path) -> None:
    """Rename the finished folder to `root`, moving an older phantom out of the way first."""
    if not root.exists() or not any(root.iterdir()):
        finished.replace(root)
        return
    outdated = root.with_name(f".{root.name}.{os.getpid()}.old")
    root.rename(outdated)
    finished.rename(root)
    shutil.rmtree(outdated)
