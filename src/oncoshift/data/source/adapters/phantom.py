"""Adapter `phantom`: the made-up data set of `oncoshift phantom`, with the masks of its nuclei.

The layout is that of adapter `folder`, with PHANTOM.txt and masks/ added. Groups: made up, too.
Licence: that of oncoshift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.data.source.adapters.base import NothingFitsError
from oncoshift.data.source.adapters.folder import MARKER, FolderAdapter, find_organs_folder

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.data.source.adapters.base import RawTile
    from oncoshift.settings import IngestSettings

MASKS = "masks"
"""The folder at the root with a mask for each tile, at the tile's own path."""


class PhantomAdapter:
    """An adapter of the folder layout with PHANTOM.txt and masks/ added."""

    title = "the made-up data set of `oncoshift phantom`: adapter folder's layout, PHANTOM.txt and masks/"

    def fits(self, root: Path) -> bool:
        """See `Adapter.fits`."""
        return is_made_up(root)

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """See `Adapter.scan`."""
        if not is_made_up(root):
            raise NothingFitsError(
                f"ingest.root {root}: no {MARKER} there, so this is no phantom; "
                "run `oncoshift phantom` to make one, or set ingest.adapter to that of your data"
            )
        return FolderAdapter(ignored=frozenset({MASKS})).scan(root, settings, unpacked)


def is_made_up(root: Path) -> bool:
    """Whether the data set at `root` (a folder, or a manifest in it) is a phantom."""
    folder = root.parent if root.is_file() else root
    return any((place / MARKER).is_file() for place in (folder, find_organs_folder(folder)))


def to_mask_path(root: Path, tile_id: str) -> Path:
    """Build the path of the mask of a tile's nuclei, which need not exist."""
    return root / MASKS / tile_id
