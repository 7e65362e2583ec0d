"""Adapter `multi_cancer`: Kaggle's "Multi Cancer Dataset", 5,000 JPEGs per class.

As published (`obulisainaren/multi-cancer`); its other folders (ALL, Brain Cancer, Cervical Cancer,
Lymphoma, Oral Cancer) are ignored:

    Multi Cancer/Multi Cancer/Lung and Colon Cancer/lung_aca/lung_aca_0001.jpg
        (also lung_bnt, lung_scc, colon_aca, colon_bnt)
    Multi Cancer/Multi Cancer/Breast Cancer/{breast_benign,breast_malignant}/breast_benign_0001.jpg
    Multi Cancer/Multi Cancer/Kidney Cancer/{kidney_normal,kidney_tumor}/kidney_normal_0001.jpg

Kidney is abdominal CT, not histology. It is refused unless `ingest.allow_ct` is set, so that nobody
reports it as transfer between tissues. `lung_scc` is used if `ingest.include_squamous` is set.

Groups: lung and colon are the tiles of LC25000 and breast is augmented from BreakHis, both
renumbered; the names tell neither patient nor original. So each tile is its own group here, and a
split by these groups leaks: leave `ingest.join_near_duplicates` on.

Licence: that of each source (LC25000: cite the authors; BreakHis: CC BY 4.0); see the page of the
data set. Used by arXiv:2601.14678.
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
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.settings import IngestSettings

SQUAMOUS = "lung_scc"
CT = {"kidney_normal": ("kidney", BENIGN), "kidney_tumor": ("kidney", MALIGNANT)}
CLASSES = {
    "lung_bnt": ("lung", BENIGN),
    "lung_aca": ("lung", MALIGNANT),
    SQUAMOUS: ("lung", MALIGNANT),
    "colon_bnt": ("colon", BENIGN),
    "colon_aca": ("colon", MALIGNANT),
    "breast_benign": ("breast", BENIGN),
    "breast_malignant": ("breast", MALIGNANT),
    **CT,
}
_ONLY_HERE = ("lung_bnt", "colon_bnt", "breast_benign", "breast_malignant", *CT)


class MultiCancerAdapter:
    """An adapter of folders named by organ and class that refuses CT."""

    title = (
        "Multi Cancer (Kaggle): lung_aca, lung_bnt, colon_aca, colon_bnt, breast_benign, breast_malignant; "
        "kidney is CT; licences of its sources"
    )

    def fits(self, root: Path) -> bool:
        """See `Adapter.fits`."""
        return bool(find_folders(root, _ONLY_HERE))

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """See `Adapter.scan`."""
        wanted = {name: what for name, what in CLASSES.items() if name != SQUAMOUS or settings.include_squamous}
        folders = find_folders(root, wanted)
        ct = [folder for folder in folders if folder.name.lower() in CT]
        if ct and not settings.allow_ct:
            raise DataError(
                f"{ct[0]}: the kidney images of this data set are abdominal CT, not histology, and say nothing about "
                f"transfer between tissues; move the folder {ct[0].parent.name!r} out of ingest.root, or set "
                "ingest.allow_ct: true to take them all the same"
            )
        tiles = list_ungrouped_tiles(root, {folder: wanted[folder.name.lower()] for folder in folders})
        if not tiles:
            raise build_nothing_fits_error(root, "folders lung_aca, lung_bnt, colon_aca, colon_bnt, breast_benign, …")
        return tiles
