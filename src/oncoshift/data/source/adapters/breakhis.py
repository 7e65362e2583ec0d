"""Adapter `breakhis`: BreakHis, breast tiles of 700×460 pixels, PNG, at 40×, 100×, 200× and 400×.

As published (`BreaKHis_v1.tar.gz`):

    BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png
    BreaKHis_v1/histology_slides/breast/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523/200X/SOB_M_DC-14-2523-200-001.png

A name contains biopsy (SOB), class (B benign, M malignant), subtype, year-slide, magnification and
number, so tiles are found by name anywhere below the root. Only the magnification
`ingest.magnification` is used, because tiles at another one show the same tissue again.

Groups: `<year>-<slide>`, as the authors count their 82 patients; a letter after the number is part
of it. Slide 14-13412 is listed under two subtypes (DC and LC) and is one group.

Licence: CC BY 4.0. Spanhol et al., A Dataset for Breast Cancer Histopathological Image
Classification, IEEE Transactions on Biomedical Engineering 63(7), 2016,
doi:10.1109/TBME.2015.2496264.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oncoshift.data.source.adapters.base import BENIGN, MALIGNANT, RawTile, build_nothing_fits_error
from oncoshift.data.source.folders import find_folders, find_images
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.settings import IngestSettings

_NAME = re.compile(
    r"(?:SOB|CNB)_(?P<kind>[BM])_(?P<subtype>A|F|PT|TA|DC|LC|MC|PC)"
    r"-(?P<slide>\d+-\d+[A-Z]*)-(?P<magnification>40|100|200|400)-\d+",
    re.IGNORECASE,
)
_LABELS = {"B": BENIGN, "M": MALIGNANT}
_EXPECTED = (
    "BreaKHis_v1/histology_slides/breast/<class>/SOB/<subtype>/<slide>/<magnification>/SOB_M_DC-14-2523-200-001.png"
)


class BreakhisAdapter:
    """Files named by class, slide and magnification."""

    title = "BreakHis: BreaKHis_v1/histology_slides/breast/…/SOB_M_DC-14-2523-200-001.png, one magnification; CC BY 4.0"

    def fits(self, root: Path) -> bool:
        """See `Adapter.fits`."""
        return bool(find_folders(root, ("histology_slides",)))

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """See `Adapter.scan`."""
        tiles: list[RawTile] = []
        magnifications: set[int] = set()
        for path in find_images(root):
            name = _NAME.fullmatch(path.stem)
            if name is None:
                continue
            magnifications.add(int(name["magnification"]))
            if int(name["magnification"]) == settings.magnification:
                where = path.relative_to(root).as_posix()
                tiles.append(RawTile(path, where, "breast", _LABELS[name["kind"].upper()], name["slide"].upper()))
        if not magnifications:
            raise build_nothing_fits_error(root, _EXPECTED)
        if not tiles:
            raise DataError(
                f"ingest.root {root}: no tile at ingest.magnification {settings.magnification}; "
                f"there are {', '.join(map(str, sorted(magnifications)))}"
            )
        return sorted(tiles, key=lambda tile: tile.tile_id)
