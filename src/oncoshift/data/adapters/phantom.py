"""Adapter `phantom`: the made-up data set that `oncoshift phantom` writes, with the masks of its nuclei."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.data.adapters.folder import MARKER, FolderAdapter
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.data.adapters.base import RawTile

MASKS = "masks"
"""The folder at the root with a mask for each tile, under the tile's own path."""


class PhantomAdapter:
    """The folder layout, beside it PHANTOM.txt and masks/."""

    def scan(self, root: Path) -> list[RawTile]:
        """See `Adapter.scan`."""
        if not is_made_up(root):
            raise DataError(
                f"ingest.root {root}: no {MARKER} there, so this is no phantom; "
                "run `oncoshift phantom` to make one, or set ingest.adapter to folder or manifest"
            )
        return FolderAdapter(ignored=frozenset({MASKS})).scan(root)


def is_made_up(root: Path) -> bool:
    """Whether the data set at `root` (a folder, or a manifest in it) is a phantom."""
    return ((root.parent if root.is_file() else root) / MARKER).is_file()


def mask_path(root: Path, tile_id: str) -> Path:
    """Where the mask of a tile's nuclei lies; not every data set has one."""
    return root / MASKS / tile_id
