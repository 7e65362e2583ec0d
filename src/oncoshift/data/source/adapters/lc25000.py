"""Adapter `lc25000`: LC25000, lung and colon tiles of 768×768 pixels, JPEG, 5,000 per class.

As published (`LC25000.zip`, and Kaggle's
`andrewmvd/lung-and-colon-cancer-histopathological-images`):

    lung_colon_image_set/lung_image_sets/lung_aca/lungaca1.jpeg (also lung_n, lung_scc)
    lung_colon_image_set/colon_image_sets/colon_aca/colonca1.jpeg (also colon_n)

Adenocarcinoma (`aca`) is malignant and `n` is benign. Squamous cell carcinoma (`lung_scc`) is left
out unless `ingest.include_squamous` is set, because the other organs only have adenocarcinoma.

Groups: 250 originals per class were rotated and flipped to 5,000 tiles (750 of lung, 500 of colon),
and the names do not tell which tile came from which original. So each tile is its own group here,
and a split by these groups leaks: leave `ingest.join_near_duplicates` on, which finds the
originals.

Licence: the authors ask for citation; no restriction on use. Borkowski et al., Lung and Colon
Cancer Histopathological Image Dataset (LC25000), arXiv:1912.12142, 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.data.source.adapters.base import (
    BENIGN,
    MALIGNANT,
    RawTile,
    build_nothing_fits_error,
    list_ungrouped_tiles,
)
from oncoshift.data.source.folders import find_folders

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.settings import IngestSettings

SQUAMOUS = "lung_scc"
CLASSES = {
    "lung_n": ("lung", BENIGN),
    "lung_aca": ("lung", MALIGNANT),
    SQUAMOUS: ("lung", MALIGNANT),
    "colon_n": ("colon", BENIGN),
    "colon_aca": ("colon", MALIGNANT),
}
_ONLY_HERE = ("lung_n", "colon_n")  # the other names are those of multi_cancer, too


class Lc25000Adapter:
    """An adapter of folders named by organ and class."""

    title = (
        "LC25000: lung_image_sets/{lung_aca,lung_n,lung_scc}, colon_image_sets/{colon_aca,colon_n}; cite the authors"
    )

    def fits(self, root: Path) -> bool:
        """See `Adapter.fits`."""
        return bool(find_folders(root, _ONLY_HERE))

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """See `Adapter.scan`."""
        wanted = {name: what for name, what in CLASSES.items() if name != SQUAMOUS or settings.include_squamous}
        tiles = list_ungrouped_tiles(
            root, {folder: wanted[folder.name.lower()] for folder in find_folders(root, wanted)}
        )
        if not tiles:
            raise build_nothing_fits_error(
                root, "lung_image_sets/{lung_aca,lung_n}, colon_image_sets/{colon_aca,colon_n}"
            )
        return tiles
