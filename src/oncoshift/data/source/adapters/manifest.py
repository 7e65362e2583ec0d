"""Adapter `manifest`: a CSV with one row per tile.

Columns: path, organ, label (benign, malignant; unknown, unlabelled or empty), group, and optionally
sha256, which the file must have, and um_per_pixel, its scale. Other columns are ignored. Organs and
labels may be in any case, and blanks around a cell do not count. A path is relative to the CSV's
folder, or to `tiles/` in it, and matches its file whether the disk stores accents composed or
decomposed. `ingest.root` is the folder of a `tiles.csv` (or of a single folder that has it), or the
CSV itself. Prefer the folder: DVC then also notices when a tile changes.

Groups: the column `group`. Licence: your own.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from oncoshift.data.names import Finder
from oncoshift.data.source.adapters.base import LABEL_NUMBERS, NothingFitsError, RawTile
from oncoshift.data.source.csv_rows import BadRows, parse_scale, read_rows
from oncoshift.data.source.folders import list_subfolders
from oncoshift.data.tables import UNKNOWN
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.settings import IngestSettings

COLUMNS = ("path", "organ", "label", "group")
NAME = "tiles.csv"


class ManifestAdapter:
    """An adapter of tiles listed in a CSV."""

    title = "your own tiles: tiles.csv with the columns path, organ, label, group (and sha256, um_per_pixel)"

    def fits(self, root: Path) -> bool:
        """See `Adapter.fits`."""
        return _find_manifest(root).is_file()

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """See `Adapter.scan`. A tile_id is the path in the CSV; its file may be missing."""
        manifest = _find_manifest(root)
        if not manifest.is_file():
            raise NothingFitsError(f"ingest.root {root}: no CSV there; give a CSV, or a folder with {NAME}")
        tiles: list[RawTile] = []
        bad = BadRows(manifest)
        find = Finder()
        for line, row in read_rows(manifest, COLUMNS):
            try:
                tiles.append(_parse_tile(row, manifest.parent, find))
            except ValueError as error:
                bad.add(line, error)
        bad.refuse()
        _check_files(manifest, tiles)
        return sorted(tiles, key=lambda tile: tile.tile_id)


def _find_manifest(root: Path) -> Path:
    """Find the CSV: the root itself, or `tiles.csv` in it or in its only folder."""
    if not root.is_dir() or (root / NAME).is_file():
        return root / NAME if root.is_dir() else root
    inner = list_subfolders(root)
    return (inner[0] if len(inner) == 1 else root) / NAME


def _check_files(manifest: Path, tiles: list[RawTile]) -> None:
    if not tiles:
        raise DataError(f"{manifest}: no rows below the header")
    if not any(tile.path.is_file() for tile in tiles):
        folder = manifest.parent
        raise DataError(
            f"{manifest}: all {len(tiles)} files are absent, for example {tiles[0].tile_id}; "
            f"paths are relative to {folder} or {folder}/tiles"
        )


def _parse_tile(row: dict[str, str], folder: Path, find: Finder) -> RawTile:
    for column in ("path", "organ", "group"):
        if not row[column]:
            raise ValueError(f"column {column}: is empty")
    label = LABEL_NUMBERS.get(row["label"].lower()) if row["label"] else UNKNOWN
    if label is None:
        raise ValueError(f"column label: {row['label']!r} is not a label; allowed: {', '.join(LABEL_NUMBERS)}")
    relative = PurePosixPath(row["path"])
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"column path: {row['path']!r} must stay below the CSV's folder")
    return RawTile(
        path=find(folder, relative) or find(folder / "tiles", relative) or folder / relative,
        tile_id=relative.as_posix(),
        organ=row["organ"].lower(),
        label=label,
        group=row["group"],
        sha256_expected=row.get("sha256", "").lower() or None,
        um_per_pixel=parse_scale(row.get("um_per_pixel", "")),
    )
