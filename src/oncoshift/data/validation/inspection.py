"""The inspection of one tile's file: its hash, its measurements and its fault, if any."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.data.names import escape_unprintable, is_text
from oncoshift.data.validation.checks import Fault, find_fault
from oncoshift.data.validation.links import find_outside_target
from oncoshift.serving.images import UnreadableImageError, decode, read_image_file
from oncoshift.serving.tissue import Measurements, measure

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.data.source.adapters.base import RawTile
    from oncoshift.settings import IngestSettings


@dataclass(frozen=True, slots=True)
class Inspected:
    """A tile whose file was opened, or could not be.

    Attributes:
        tile: as the data set lists it.
        sha256: hex digest of the file's bytes; None if they cannot be read.
        measured: None if the image cannot be decoded.
        fault: None for a sound tile.
    """

    tile: RawTile
    sha256: str | None
    measured: Measurements | None
    fault: Fault | None


def inspect(tile: RawTile, settings: IngestSettings, root: Path) -> Inspected:
    """Read, decode and measure a tile of the data set at `root`; the result includes any fault."""
    fault = _find_path_fault(tile.path, root)
    if fault is not None:
        return Inspected(tile, None, None, fault)
    try:
        data = read_image_file(tile.path)
    except UnreadableImageError as error:
        return Inspected(tile, None, None, Fault("unreadable", str(error)))
    digest = hashlib.sha256(data).hexdigest()
    if tile.sha256_expected is not None and digest != tile.sha256_expected:
        reason = f"content is not what the manifest promises: sha256 {digest[:12]}…, not {tile.sha256_expected[:12]}…"
        return Inspected(tile, digest, None, Fault("changed", reason))
    try:
        measured = measure(decode(data))
    except UnreadableImageError as error:
        return Inspected(tile, digest, None, Fault("unreadable", str(error)))
    return Inspected(tile, digest, measured, find_fault(measured, settings))


def _find_path_fault(path: Path, root: Path) -> Fault | None:
    """Find a fault of a tile's path, before the file is opened."""
    if not is_text(str(path)):
        return Fault("not_utf8", "its name is not UTF-8; rename it, for example with `convmv`")
    try:
        path.stat()
    except FileNotFoundError as error:
        if not path.is_symlink():
            return Fault("missing", f"cannot be read: {error.strerror}")
        return Fault(
            "missing", f"cannot be read: a link to {escape_unprintable(str(path.readlink()))}, where nothing is"
        )
    except OSError as error:
        return Fault("unreadable", f"cannot be read: {error.strerror}")
    target = find_outside_target(root, path)
    if target is not None:
        where = escape_unprintable(str(target))
        return Fault("outside", f"a link to {where}, outside of ingest.root; put the file itself there (`cp -L`)")
    return None


def mark_repeated(inspected: list[Inspected]) -> list[Inspected]:
    """Mark tiles with the tile_id of an earlier one as `named_twice`."""
    seen: set[str] = set()
    result = []
    for one in inspected:
        if one.tile.tile_id in seen:
            fault = Fault("named_twice", "named twice in the data set; the first one is kept")
            one = Inspected(one.tile, one.sha256, one.measured, fault)
        seen.add(one.tile.tile_id)
        result.append(one)
    return result
