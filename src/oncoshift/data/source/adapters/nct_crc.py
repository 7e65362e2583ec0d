"""Adapter `nct_crc`: NCT-CRC-HE-100K and CRC-VAL-HE-7K, colorectal tiles of 224×224 pixels, TIFF.

As published (`NCT-CRC-HE-100K.zip`, `CRC-VAL-HE-7K.zip`; the root may hold one of them or both):

    NCT-CRC-HE-100K/{ADI,BACK,DEB,LYM,MUC,MUS,NORM,STR,TUM}/TUM-AAAHNQNH.tif
    CRC-VAL-HE-7K/{ADI,…,TUM}/TUM-TCGA-AAICEQFN.tif

`TUM` (adenocarcinoma) is malignant and `NORM` (normal mucosa) is benign. The other seven classes
are not epithelium and are ignored. Organ: colon.

Groups: it was not published which of the 86 slides a tile is from, so each tile is its own group,
and intervals are narrower than they should be. The 100K and the 7K are of different patients: keep
them apart if you can.

Licence: CC BY 4.0. Kather, Halama, Marx, 100,000 histological images of human colorectal cancer and
healthy tissue, Zenodo 2018, doi:10.5281/zenodo.1214456.
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

CLASSES = {"norm": ("colon", BENIGN), "tum": ("colon", MALIGNANT)}


class NctCrcAdapter:
    """An adapter of folders named by class, in capitals."""

    title = "NCT-CRC-HE-100K, CRC-VAL-HE-7K: NORM, TUM; other classes are passed over; CC BY 4.0"

    def fits(self, root: Path) -> bool:
        """See `Adapter.fits`."""
        return bool(find_folders(root, CLASSES))

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """See `Adapter.scan`."""
        tiles = list_ungrouped_tiles(
            root, {folder: CLASSES[folder.name.lower()] for folder in find_folders(root, CLASSES)}
        )
        if not tiles:
            raise build_nothing_fits_error(root, "NCT-CRC-HE-100K/{NORM,TUM} or CRC-VAL-HE-7K/{NORM,TUM}")
        return tiles
